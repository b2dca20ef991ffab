//! `${NAME}` in values of the configuration file.
//!
//! | written | becomes |
//! |---|---|
//! | `${NAME}` or `${env:NAME}` | the environment variable; an error if it is not set |
//! | `${env:NAME:-text}` | the same, or the text if it is not set or empty |
//! | `$$` | `$` |
//! | `$` before anything else | itself |
//!
//! Remote configurations are not expanded: they could read secrets out of this process's environment.

use std::ffi::OsString;

/// Where variables come from.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Replaces references to variables. The error says what is wrong and shows no value.
pub(crate) fn expand(text: &str, variables: Variables<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(literal) = after.strip_prefix('$') {
            expanded.push('$');
            rest = literal;
        } else if let Some(reference) = after.strip_prefix('{') {
            let end =
                reference.find('}').ok_or("a `${` is not closed with `}`; write `$$` for a plain `$`")?;
            expanded.push_str(&resolve(&reference[..end], variables)?);
            rest = &reference[end + 1..];
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Whether there is anything to replace.
pub(crate) fn has_reference(text: &str) -> bool {
    text.contains("${")
}

fn resolve(reference: &str, variables: Variables<'_>) -> Result<String, String> {
    let (reference, default) = match reference.split_once(":-") {
        Some((reference, default)) => (reference, Some(default)),
        None => (reference, None),
    };
    let name = match reference.split_once(':') {
        Some(("env", name)) => name,
        Some((scheme, _)) => {
            return Err(format!("`${{{scheme}:…}}` is not supported; use `${{env:NAME}}`"));
        }
        None => reference,
    };
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(format!("`{name}` in `${{…}}` is not the name of an environment variable"));
    }
    let value = variables(name).map(OsString::into_string).transpose();
    let value = value.map_err(|_| format!("the environment variable {name} is not UTF-8"))?;
    match (value, default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "the environment variable {name} is not set; set it for this process, or give a default with \
             `${{env:{name}:-…}}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<OsString> {
        match name {
            "TOKEN" => Some("s3cret".into()),
            "EMPTY" => Some(OsString::new()),
            "NESTED" => Some("${TOKEN}".into()),
            "LATIN" => Some(std::os::unix::ffi::OsStringExt::from_vec(b"s\xe9cret".to_vec())),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced_once_and_dollars_can_be_written() {
        for (text, expected) in [
            ("Bearer ${TOKEN}", "Bearer s3cret"),
            ("${env:TOKEN}${TOKEN}!", "s3crets3cret!"),
            ("${env:MISSING:-fallback}", "fallback"),
            ("${EMPTY:-a:-b}", "a:-b"),
            ("${EMPTY}", ""),
            ("${TOKEN:-x}", "s3cret"),
            ("${NESTED}", "${TOKEN}"),
            ("$$ $${TOKEN} 5$ $x", "$ ${TOKEN} 5$ $x"),
            ("plain ä", "plain ä"),
        ] {
            assert_eq!(expand(text, &variables).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_named() {
        for (text, what) in [
            ("${MISSING}", "the environment variable MISSING is not set"),
            ("${env:MISSING}", "the environment variable MISSING is not set"),
            ("${LATIN}", "the environment variable LATIN is not UTF-8"),
            ("${env:LATIN:-text}", "the environment variable LATIN is not UTF-8"),
            ("${file:/etc/passwd}", "`${file:…}` is not supported"),
            ("${TOKEN", "not closed"),
            ("${}", "not the name"),
            ("${A B}", "not the name"),
        ] {
            let error = expand(text, &variables).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
