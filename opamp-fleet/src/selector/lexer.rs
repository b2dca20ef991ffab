//! Tokens of a selector, with the place where each begins.

use std::fmt;

use super::error::SelectorError;

/// A token and the byte offset at which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spanned<'a> {
    pub(super) at: usize,
    pub(super) token: Token<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A bare word.
    Word(&'a str),
    /// A quoted text, its escapes resolved.
    Quoted(String),
    Comma,
    Open,
    Close,
    Not,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbol = match self {
            Self::Word(word) => return write!(f, "`{}`", abbreviated(word)),
            Self::Quoted(text) => return write!(f, "{:?}", abbreviated(text)),
            Self::End => return f.write_str("the end"),
            Self::Comma => ",",
            Self::Open => "(",
            Self::Close => ")",
            Self::Not => "!",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        };
        write!(f, "`{symbol}`")
    }
}

/// Whether `text` can stand without quotes.
pub(super) fn is_bare(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_bare_byte)
}

/// Splits a selector into tokens, the last of which is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Spanned<'_>>, SelectorError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        let (token, length) = next(text, at)?;
        let ended = token == Token::End;
        tokens.push(Spanned { at, token });
        if ended {
            return Ok(tokens);
        }
        at += length;
    }
}

/// The token at `at`, which is no blank, and its length.
fn next(text: &str, at: usize) -> Result<(Token<'_>, usize), SelectorError> {
    let rest = &text[at..];
    let mut bytes = rest.bytes();
    let Some(first) = bytes.next() else { return Ok((Token::End, 0)) };
    let second = bytes.next();
    Ok(match (first, second) {
        (b',', _) => (Token::Comma, 1),
        (b'(', _) => (Token::Open, 1),
        (b')', _) => (Token::Close, 1),
        (b'=', Some(b'=')) => (Token::Equal, 2),
        (b'=', _) => (Token::Equal, 1),
        (b'!', Some(b'=')) => (Token::NotEqual, 2),
        (b'!', _) => (Token::Not, 1),
        (b'<', Some(b'=')) => (Token::LessOrEqual, 2),
        (b'<', _) => (Token::Less, 1),
        (b'>', Some(b'=')) => (Token::GreaterOrEqual, 2),
        (b'>', _) => (Token::Greater, 1),
        (b'"', _) => {
            let (content, length) = quoted(text, at)?;
            (Token::Quoted(content), length)
        }
        (first, _) if is_bare_byte(first) => {
            let length = rest.bytes().take_while(|b| is_bare_byte(*b)).count();
            (Token::Word(&rest[..length]), length)
        }
        _ => {
            let found = rest.chars().next().unwrap_or_default();
            return Err(SelectorError::new(
                text,
                at,
                format!("{found:?}"),
                "a key, an operator or a value; put \"…\" around text with other characters",
            ));
        }
    })
}

/// A text in double quotes beginning at `at`; `\"` and `\\` stand for the second character.
fn quoted(text: &str, at: usize) -> Result<(String, usize), SelectorError> {
    let mut content = String::new();
    let mut chars = text[at + 1..].char_indices();
    while let Some((offset, char)) = chars.next() {
        match char {
            '"' => return Ok((content, offset + 2)),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => content.push(escaped),
                other => {
                    let found = other.map_or("the end".to_owned(), |(_, char)| format!("{char:?}"));
                    return Err(SelectorError::new(
                        text,
                        at + offset + 2,
                        found,
                        "`\"` or `\\` after a backslash",
                    ));
                }
            },
            _ => content.push(char),
        }
    }
    Err(SelectorError::new(text, text.len(), "the end".to_owned(), "a closing `\"`"))
}

/// Letters and digits, and what occurs in keys, versions, paths and addresses.
fn is_bare_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_./:+@".contains(&byte)
}

fn abbreviated(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARS_MAX).chain(['…']).collect()
}
