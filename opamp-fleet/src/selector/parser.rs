//! From text to a [`Selector`].

use std::iter::Peekable;
use std::str::FromStr;
use std::vec::IntoIter;

use opamp_proto::AgentCapabilities;

use super::error::SelectorError;
use super::lexer::{Spanned, Token, tokens};
use super::{Comparison, Key, REQUIREMENTS_MAX, Requirement, SELECTOR_BYTES_MAX, Selector, Test, VALUES_MAX};
use crate::labels::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LabelScope};
use crate::version::Version;
use crate::{Drift, Health, Liveness};

pub(super) fn parse(text: &str) -> Result<Selector, SelectorError> {
    if text.len() > SELECTOR_BYTES_MAX {
        let expected = format!("at most {SELECTOR_BYTES_MAX} bytes");
        return Err(SelectorError::new(text, 0, format!("{} bytes", text.len()), expected));
    }
    let mut parser = Parser { text, tokens: tokens(text)?.into_iter().peekable() };
    let mut requirements = Vec::new();
    if parser.peek() == &Token::End {
        return Ok(Selector { requirements });
    }
    loop {
        if requirements.len() == REQUIREMENTS_MAX {
            let at = parser.at();
            return Err(parser.error(
                at,
                "another requirement".into(),
                format!("at most {REQUIREMENTS_MAX}"),
            ));
        }
        requirements.push(parser.requirement()?);
        let next = parser.next();
        match next.token {
            Token::End => return Ok(Selector { requirements }),
            Token::Comma => {}
            _ => return Err(parser.unexpected(&next, "`,` or the end")),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Peekable<IntoIter<Spanned<'a>>>,
}

const OPERATOR: &str = "`=`, `==`, `!=`, `in`, `notin`, `<`, `<=`, `>`, `>=`, `,` or the end";

impl<'a> Parser<'a> {
    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek() == &Token::Not {
            self.next();
            let (at, key) = self.key()?;
            self.check_existence(at, &key)?;
            return Ok(Requirement { key, test: Test::Absent });
        }
        let (at, key) = self.key()?;
        let test = match self.peek() {
            Token::Comma | Token::End => {
                self.check_existence(at, &key)?;
                Test::Exists
            }
            _ => self.test(&key)?,
        };
        Ok(Requirement { key, test })
    }

    fn key(&mut self) -> Result<(usize, Key), SelectorError> {
        let next = self.next();
        let (name, quoted) = match &next.token {
            Token::Word(word) => (word.to_string(), false),
            Token::Quoted(text) => (text.clone(), true),
            _ => return Err(self.unexpected(&next, "a key or `!`")),
        };
        // A quoted key is always a label's: the way to reach one that is called like a pseudo-key.
        let pseudo = if quoted { None } else { Key::pseudo(&name) };
        if let Some(key) = pseudo {
            return Ok((next.at, key));
        }
        if !quoted && name == super::RESERVED_GROUP {
            return Err(
                self.unexpected(&next, "another key: `group` is reserved; write `label/group` for the label")
            );
        }
        let scoped = LabelScope::ALL
            .into_iter()
            .find_map(|scope| Some((scope, name.strip_prefix(scope.as_str())?.strip_prefix('/')?)));
        let key = match scoped {
            Some((scope, name)) => Key::Label { scope: Some(scope), name: name.to_owned() },
            None => Key::Label { scope: None, name },
        };
        match &key {
            Key::Label { name, .. } if name.is_empty() || name.len() > LABEL_KEY_BYTES_MAX => {
                let found = format!("a key of {} bytes", name.len());
                Err(self.error(next.at, found, format!("1 to {LABEL_KEY_BYTES_MAX} bytes")))
            }
            _ => Ok((next.at, key)),
        }
    }

    fn test(&mut self, key: &Key) -> Result<Test, SelectorError> {
        let next = self.next();
        let comparison = match next.token {
            Token::Equal => return Ok(Test::In(vec![self.value_or_empty(key)?])),
            Token::NotEqual => return Ok(Test::NotIn(vec![self.value_or_empty(key)?])),
            Token::Word("in") => return Ok(Test::In(self.values(key)?)),
            Token::Word("notin") => return Ok(Test::NotIn(self.values(key)?)),
            Token::Less => Comparison::Less,
            Token::LessOrEqual => Comparison::LessOrEqual,
            Token::Greater => Comparison::Greater,
            Token::GreaterOrEqual => Comparison::GreaterOrEqual,
            _ => return Err(self.unexpected(&next, OPERATOR)),
        };
        if !matches!(key, Key::Label { .. } | Key::Version) {
            return Err(self.unexpected(&next, format!("`=`, `!=`, `in` or `notin` after `{key}`")));
        }
        let value = self.next();
        let text = self.text_of(&value, "a version or a whole number")?;
        if Version::parse(&text).is_none() {
            return Err(self.unexpected(&value, "a version such as `1.2.0` or a whole number"));
        }
        Ok(Test::Compare(comparison, text))
    }

    fn values(&mut self, key: &Key) -> Result<Vec<String>, SelectorError> {
        let open = self.next();
        if open.token != Token::Open {
            return Err(self.unexpected(&open, "`(`"));
        }
        let mut values = Vec::new();
        loop {
            if values.len() == VALUES_MAX {
                let at = self.at();
                return Err(self.error(at, "another value".into(), format!("at most {VALUES_MAX}")));
            }
            values.push(self.value(key)?);
            let next = self.next();
            match next.token {
                Token::Comma => {}
                Token::Close => break,
                _ => return Err(self.unexpected(&next, "`,` or `)`")),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }

    /// As in Kubernetes, `key=` asks for the empty value.
    fn value_or_empty(&mut self, key: &Key) -> Result<String, SelectorError> {
        if matches!(key, Key::Label { .. }) && matches!(self.peek(), Token::Comma | Token::End) {
            return Ok(String::new());
        }
        self.value(key)
    }

    fn value(&mut self, key: &Key) -> Result<String, SelectorError> {
        let next = self.next();
        let expected = match key {
            Key::AgentType | Key::Label { .. } => "a value, in \"…\" if it has blanks or is empty".to_owned(),
            Key::Capability => "the name of a capability, such as `AcceptsRemoteConfig`".to_owned(),
            Key::Drift => one_of(&Drift::ALL.map(Drift::as_str)),
            Key::Health => one_of(&Health::ALL.map(Health::as_str)),
            Key::Liveness => one_of(&Liveness::ALL.map(Liveness::as_str)),
            Key::Version => "a version such as `1.2.0`".to_owned(),
        };
        let text = self.text_of(&next, expected.as_str())?;
        let known = match key {
            Key::AgentType | Key::Label { .. } => true,
            Key::Capability => AgentCapabilities::from_name(&text).is_some(),
            Key::Drift => Drift::from_str(&text).is_ok(),
            Key::Health => Health::from_str(&text).is_ok(),
            Key::Liveness => Liveness::from_str(&text).is_ok(),
            Key::Version => Version::parse(&text).is_some(),
        };
        if known { Ok(text) } else { Err(self.unexpected(&next, expected)) }
    }

    fn text_of(&self, token: &Spanned<'_>, expected: &str) -> Result<String, SelectorError> {
        let text = match &token.token {
            Token::Word(word) => word.to_string(),
            Token::Quoted(text) => text.clone(),
            _ => return Err(self.unexpected(token, expected)),
        };
        if text.len() > LABEL_VALUE_BYTES_MAX {
            let found = format!("a value of {} bytes", text.len());
            return Err(self.error(token.at, found, format!("at most {LABEL_VALUE_BYTES_MAX} bytes")));
        }
        Ok(text)
    }

    /// Existence says nothing about what every agent has, or has in some form.
    fn check_existence(&self, at: usize, key: &Key) -> Result<(), SelectorError> {
        match key {
            Key::Label { .. } | Key::Version => Ok(()),
            Key::AgentType | Key::Capability | Key::Drift | Key::Health | Key::Liveness => {
                let expected = format!("`{key}` together with `=`, `!=`, `in` or `notin`");
                Err(self.error(at, format!("`{key}` alone"), expected))
            }
        }
    }

    fn peek(&mut self) -> &Token<'a> {
        self.tokens.peek().map_or(&Token::End, |spanned| &spanned.token)
    }

    fn at(&mut self) -> usize {
        self.tokens.peek().map_or(self.text.len(), |spanned| spanned.at)
    }

    fn next(&mut self) -> Spanned<'a> {
        self.tokens.next().unwrap_or(Spanned { at: self.text.len(), token: Token::End })
    }

    fn unexpected(&self, token: &Spanned<'_>, expected: impl Into<String>) -> SelectorError {
        self.error(token.at, token.token.to_string(), expected)
    }

    fn error(&self, at: usize, found: String, expected: impl Into<String>) -> SelectorError {
        SelectorError::new(self.text, at, found, expected)
    }
}

fn one_of(words: &[&str]) -> String {
    format!("one of {}", words.join(", "))
}
