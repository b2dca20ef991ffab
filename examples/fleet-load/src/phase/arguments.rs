//! The arguments of a phase: taken one by one, and what is left over is a mistake.

/// What stands after the colon.
pub(super) struct Arguments<'a> {
    left: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, String> {
        let mut left: Vec<(&str, Option<&str>)> = Vec::new();
        for argument in text.split(',').map(str::trim).filter(|argument| !argument.is_empty()) {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (argument, None),
            };
            if left.iter().any(|(other, _)| *other == name) {
                return Err(format!("{name} is given twice"));
            }
            left.push((name, value));
        }
        Ok(Self { left })
    }

    /// Whether a bare word is there.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let before = self.left.len();
        self.left.retain(|argument| *argument != (word, None));
        self.left.len() < before
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }

    pub(super) fn count(&mut self, name: &str) -> Result<Option<u32>, String> {
        self.parsed(name, "a whole number from 1 on", |value| value.parse().ok().filter(|count| *count > 0))
    }

    pub(super) fn rate(&mut self) -> Result<Option<f64>, String> {
        self.parsed("rate", "a number per second above 0", |value| {
            let value = value.strip_suffix("/s").unwrap_or(value);
            value.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
        })
    }

    pub(super) fn percent(&mut self) -> Result<f64, String> {
        self.parsed("percent", "a number from 0 to 100", |value| {
            let value = value.strip_suffix('%').unwrap_or(value);
            value.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))
        })?
        .ok_or_else(|| "says not how many: add percent=P".to_owned())
    }

    pub(super) fn secs(&mut self, name: &str) -> Result<Option<f64>, String> {
        self.parsed(name, "a time such as 5, 500ms, 30s or 10m", secs)
    }

    pub(super) fn size(&mut self, name: &str) -> Result<Option<u64>, String> {
        self.parsed(name, "a size such as 4096, 64KiB or 64MiB", size)
    }

    /// A size that stands alone.
    pub(super) fn first_size(&mut self) -> Result<Option<u64>, String> {
        let Some(at) = self.left.iter().position(|(_, value)| value.is_none()) else { return Ok(None) };
        let (word, _) = self.left.remove(at);
        size(word).map(Some).ok_or_else(|| format!("{word} is no size such as 4096, 64KiB or 64MiB"))
    }

    pub(super) fn finish(self) -> Result<(), String> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("does not know `{name}` here")),
        }
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        self.value(name)
            .map(|value| parse(value).ok_or_else(|| format!("{name}={value} is not {what}")))
            .transpose()
    }

    fn value(&mut self, name: &str) -> Option<&'a str> {
        let at = self.left.iter().position(|(other, value)| *other == name && value.is_some())?;
        self.left.remove(at).1
    }
}

fn secs(text: &str) -> Option<f64> {
    let (number, scale) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text, 1.0)
    };
    let secs = number.parse::<f64>().ok()? * scale;
    // A day is more than any load test.
    (secs > 0.0 && secs <= 86_400.0).then_some(secs)
}

fn size(text: &str) -> Option<u64> {
    let (number, shift) = if let Some(number) = text.strip_suffix("KiB") {
        (number, 10)
    } else if let Some(number) = text.strip_suffix("MiB") {
        (number, 20)
    } else {
        (text, 0)
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|bytes| *bytes > 0 && *bytes <= 1 << 32)
}
