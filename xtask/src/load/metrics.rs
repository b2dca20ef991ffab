//! Reading the metrics page of a server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::workspace::WorkspaceError;

/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One look at the metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// Reads the page of a server on this machine.
    ///
    /// # Errors
    ///
    /// No answer, or another one than the page.
    pub(crate) fn read(admin: SocketAddr) -> Result<Self, WorkspaceError> {
        let failed = |why: String| WorkspaceError(format!("http://{admin}/metrics: {why}"));
        let answer = exchange(admin).map_err(|error| failed(error.to_string()))?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if status(head) == Some("200") => Ok(Self(body.to_owned())),
            _ => Err(failed(answer.lines().next().unwrap_or("an empty answer").to_owned())),
        }
    }

    /// The value of a metric, summed over its labels; none if it is not there.
    #[must_use]
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.sum(name, "")
    }

    /// The same of those whose labels contain this text.
    #[must_use]
    pub(crate) fn sum(&self, name: &str, label: &str) -> Option<f64> {
        let values: Vec<f64> = self
            .0
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
            .filter_map(|rest| rest.rsplit_once(' ')?.1.parse().ok())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The same, for what has to be there.
    ///
    /// # Errors
    ///
    /// It is not.
    pub(crate) fn needed(&self, name: &str) -> Result<f64, WorkspaceError> {
        self.value(name).ok_or_else(|| WorkspaceError(format!("the server has no metric {name}")))
    }
}

/// HTTP/1.0, so that the answer comes in one piece and ends with the connection.
fn exchange(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn status(head: &str) -> Option<&str> {
    head.split(' ').nth(1)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn values_are_found_by_their_whole_name_and_summed_over_labels() {
        let page = Metrics(
            "# HELP a_total A.\na_total 3\na_total_other 7\nb{state=\"x\"} 1\nb{state=\"y\"} 2.5\n# EOF\n"
                .into(),
        );
        assert_eq!(page.value("a_total"), Some(3.0));
        assert_eq!(page.value("b"), Some(3.5));
        assert_eq!(page.sum("b", "state=\"y\""), Some(2.5));
        assert_eq!(page.sum("b", "state=\"z\""), None);
        assert!(page.needed("c").unwrap_err().to_string().contains("no metric c"));
    }

    #[test]
    fn an_answer_that_is_no_page_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = thread::spawn(move || {
            for answer in ["HTTP/1.0 200 OK\r\n\r\na 1\n", "HTTP/1.0 401 Unauthorized\r\n\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(Metrics::read(address).unwrap().value("a"), Some(1.0));
        assert!(Metrics::read(address).unwrap_err().to_string().contains("401"));
        served.join().unwrap();
    }
}
