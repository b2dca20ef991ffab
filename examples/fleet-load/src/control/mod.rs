//! How configs get to the server under load: through its REST API, or a plain request that bare servers understand.

mod http;
mod rest;

use std::path::Path;

use serde::de::DeserializeOwned;

use self::http::Client;
use crate::{
    report::Tally,
    target::{Target, TargetError},
    worker,
};

/// A way to make a server offer a config to all its agents.
#[derive(Debug)]
pub struct Control {
    client: Client,
    dialect: Dialect,
}

#[derive(Debug)]
enum Dialect {
    /// `POST /push?bytes=N`, answered with the number of agents that were told.
    Plain,
    /// The REST API of the reference server.
    Rest(rest::Rest),
}

/// A config that does not get there.
#[derive(Debug, thiserror::Error)]
#[error("control {url}: {fault}")]
pub struct ControlError {
    url: String,
    fault: String,
}

impl Control {
    /// Reads `rest+http://HOST:PORT` or `plain+http://HOST:PORT`. `seed` is the one of the run, whose agents are meant.
    ///
    /// # Errors
    ///
    /// If the URL is neither, is not on this machine and need be, or the token cannot be read.
    pub fn new(
        url: &str,
        token_file: Option<&Path>,
        seed: u32,
        allow_remote: bool,
    ) -> Result<Self, ControlError> {
        let error = |fault: String| ControlError { url: url.to_owned(), fault };
        let (rest, address) = if let Some(address) = url.strip_prefix("rest+http://") {
            (true, address)
        } else if let Some(address) = url.strip_prefix("plain+http://") {
            (false, address)
        } else {
            return Err(error(
                "write it as rest+http://127.0.0.1:4321 or plain+http://127.0.0.1:PORT".to_owned(),
            ));
        };
        let target = Target::new(&format!("http://{address}"), allow_remote)
            .map_err(|fault: TargetError| error(fault.to_string()))?;
        let token = match token_file {
            Some(path) if rest => Some(worker::first_line(path).map_err(|fault| error(fault.to_string()))?),
            _ => None,
        };
        let client = Client::new(target.address, target.authority, token);
        let dialect = if rest { Dialect::Rest(rest::Rest::new(seed)) } else { Dialect::Plain };
        Ok(Self { client, dialect })
    }

    /// Makes the server offer a config of that size to all agents, another one each time, and returns to how many.
    ///
    /// # Errors
    ///
    /// If the server does not.
    pub fn push(&mut self, bytes: u64) -> Result<u64, ControlError> {
        let outcome = match &mut self.dialect {
            Dialect::Plain => plain(&mut self.client, bytes),
            Dialect::Rest(rest) => rest.push(&mut self.client, bytes),
        };
        outcome.map_err(|fault| ControlError { url: self.client.url(), fault })
    }

    /// Asks the server how many agents run the config that they should, if it can tell, until it says that all do or has had
    /// some seconds for it.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn confirmed(&mut self, expected: u64) -> Result<Option<u64>, ControlError> {
        match &mut self.dialect {
            Dialect::Plain => Ok(None),
            Dialect::Rest(rest) => rest
                .confirmed(&mut self.client, expected)
                .map(Some)
                .map_err(|fault| ControlError { url: self.client.url(), fault }),
        }
    }

    /// What is worth knowing of the last push.
    #[must_use]
    pub fn counts(&self) -> Tally {
        match &self.dialect {
            Dialect::Plain => Tally::default(),
            Dialect::Rest(rest) => rest.counts(),
        }
    }
}

fn plain(client: &mut Client, bytes: u64) -> Result<u64, String> {
    let (status, body) = client.call("POST", &format!("/push?bytes={bytes}"), None)?;
    let text = String::from_utf8_lossy(&body);
    if status != 200 {
        return Err(format!("POST /push was answered {status}: {}", text.trim()));
    }
    text.trim()
        .parse()
        .map_err(|_| format!("POST /push was answered `{}`, not a number of agents", text.trim()))
}

/// The answer to a request, which has to have that status.
fn json<T: DeserializeOwned>(
    client: &mut Client,
    method: &str,
    path: &str,
    body: Option<&serde_json::Value>,
    expected: u16,
) -> Result<T, String> {
    let body = body.map(|body| body.to_string().into_bytes());
    let (status, answer) = client.call(method, path, body.as_deref())?;
    if status == expected {
        return serde_json::from_slice(&answer)
            .map_err(|error| format!("the answer to {method} {path} is not understood: {error}"));
    }
    let text = String::from_utf8_lossy(&answer);
    let hint = if status == 401 { "; name the file with an admin token with --admin-token-file" } else { "" };
    Err(format!("{method} {path} was answered {status}: {}{hint}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_control_is_named_with_its_form() {
        let error = Control::new("http://127.0.0.1:4321", None, 1, false).unwrap_err().to_string();
        assert!(error.contains("rest+http://127.0.0.1:4321"), "{error}");
        let error = Control::new("rest+http://192.0.2.1:4321", None, 1, false).unwrap_err().to_string();
        assert!(error.contains("--allow-remote"), "{error}");
        let missing = Some(Path::new("/nonexistent/token"));
        let error = Control::new("rest+http://127.0.0.1:4321", missing, 1, false).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/token"), "{error}");
    }
}
