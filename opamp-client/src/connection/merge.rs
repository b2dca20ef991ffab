//! What an offer leaves out.

use opamp_proto::pb;

use super::parts::{ClientCertificate, OpampSettings, OtherSettings, TelemetrySettings};
use super::secret::Secret;
use super::wire;

impl OpampSettings {
    /// This offer with what it leaves out and what is to stay: TLS and proxy of what was accepted before (R-TLS-02,
    /// R-TLS-10). A certificate that is left out is none (R-CONN-30).
    pub(crate) fn over(mut self, before: Option<&Self>) -> Self {
        self.tls = self.tls.or_else(|| before?.tls.clone());
        self.proxy = self.proxy.or_else(|| before?.proxy.clone());
        self
    }

    /// Puts the key of a certificate in that came without: of the request it answers, or of the same certificate that is
    /// in use. Whether there is one now.
    pub(crate) fn complete_key(&mut self, before: Option<&Self>, requested: Option<&Secret>) -> bool {
        let Some(certificate) = self.certificate.as_mut().filter(|certificate| certificate.key.is_empty())
        else {
            return true;
        };
        let same = |known: &&ClientCertificate| known.cert == certificate.cert;
        let known = before.and_then(|before| before.certificate.as_ref()).filter(same);
        match known.map(|known| &known.key).or(requested) {
            Some(key) => certificate.key = key.clone(),
            None => return false,
        }
        true
    }
}

impl TelemetrySettings {
    /// This offer with TLS and proxy of before where it leaves them out.
    pub(crate) fn over(mut self, before: Option<&Self>) -> Self {
        self.tls = self.tls.or_else(|| before?.tls.clone());
        self.proxy = self.proxy.or_else(|| before?.proxy.clone());
        self
    }
}

impl OtherSettings {
    /// What was known of a connection, with what an offer says of it. What the offer leaves unset or empty stays
    /// (R-CONN-35, R-CONN-36), the certificate too.
    pub(crate) fn updated(mut self, offer: pb::OtherConnectionSettings) -> Self {
        if !offer.destination_endpoint.is_empty() {
            self.endpoint = offer.destination_endpoint;
        }
        if let Some(headers) = offer.headers {
            self.headers = wire::headers(headers);
        }
        if !offer.other_settings.is_empty() {
            let other = offer.other_settings.into_iter();
            self.other = other.map(|(key, value)| (key, Secret::from(value))).collect();
        }
        self.certificate = offer.certificate.map(Into::into).or(self.certificate);
        self.tls = offer.tls.map(Into::into).or(self.tls);
        self.proxy = offer.proxy.map(Into::into).or(self.proxy);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::parts::{Header, ProxyParameters, TlsParameters};
    use super::*;

    fn certificate(cert: u8, key: &str) -> ClientCertificate {
        ClientCertificate { cert: vec![cert], key: key.into(), ca: Vec::new() }
    }

    #[test]
    fn an_opamp_offer_keeps_tls_and_proxy_and_drops_the_certificate() {
        let before = OpampSettings {
            certificate: Some(certificate(1, "k")),
            tls: Some(TlsParameters { ca_pem: "ca".into(), ..Default::default() }),
            proxy: Some(ProxyParameters { url: "p:1".into(), ..Default::default() }),
            headers: Some(vec![Header::new("a", "b")]),
            ..Default::default()
        };
        let now = OpampSettings { endpoint: "wss://h".into(), ..Default::default() }.over(Some(&before));
        assert_eq!((&now.tls, &now.proxy), (&before.tls, &before.proxy));
        assert_eq!((now.certificate, now.headers), (None, None));
    }

    #[test]
    fn a_certificate_without_key_gets_that_of_the_request_or_of_itself_and_of_nobody_else() {
        let offer = |cert| OpampSettings { certificate: Some(certificate(cert, "")), ..Default::default() };
        let before = OpampSettings { certificate: Some(certificate(1, "old")), ..Default::default() };
        let key = |mut offer: OpampSettings, requested: Option<&str>| {
            let requested = requested.map(Secret::from);
            let complete = offer.complete_key(Some(&before), requested.as_ref());
            complete.then(|| offer.certificate.unwrap().key)
        };
        assert_eq!(key(offer(1), None), Some("old".into()), "the same certificate again");
        assert_eq!(key(offer(1), Some("new")), Some("old".into()));
        assert_eq!(key(offer(2), Some("new")), Some("new".into()));
        assert_eq!(key(offer(2), None), None);
        assert!(OpampSettings::default().complete_key(None, None), "none needs none");
    }

    #[test]
    fn an_offer_of_another_connection_changes_what_it_names_and_nothing_else() {
        let known = OtherSettings {
            endpoint: "host:1234".into(),
            headers: vec![Header::new("a", "1")],
            other: [("k".to_owned(), "v".into())].into(),
            ..Default::default()
        };
        let only_certificate = pb::OtherConnectionSettings {
            certificate: Some(pb::TlsCertificate { cert: vec![1].into(), ..Default::default() }),
            ..Default::default()
        };
        let now = known.clone().updated(only_certificate);
        assert_eq!(
            (&now.endpoint, &now.headers, &now.other),
            (&known.endpoint, &known.headers, &known.other)
        );
        assert!(now.certificate.is_some());
        let moved = pb::OtherConnectionSettings {
            destination_endpoint: "anything goes".into(),
            ..Default::default()
        };
        let moved = now.clone().updated(moved);
        assert_eq!((moved.endpoint.as_str(), moved.certificate), ("anything goes", now.certificate));
        let bare = known.clone().updated(pb::OtherConnectionSettings {
            headers: Some(pb::Headers::default()),
            ..Default::default()
        });
        assert!(bare.headers.is_empty() && bare.endpoint == known.endpoint);
    }
}
