//! Proxies, as the variables that most programs know name them.

use std::ffi::OsString;

use hyper::header::HeaderValue;

use super::url::Url;
use crate::error::HubError;

/// Which server is reached through which proxy.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    direct: Vec<String>,
}

/// A proxy that is spoken to over HTTP.
#[derive(Clone)]
pub struct Proxy {
    /// Where it is.
    pub url: Url,
    /// What it is told of who asks.
    pub authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url.shown())
    }
}

impl Proxies {
    /// HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, in small letters or large ones, from `variable`.
    ///
    /// # Errors
    /// A proxy that is no address, or speaks something else than HTTP.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let text = |name: &str| {
            let either = variable(&name.to_ascii_lowercase()).or_else(|| variable(name));
            let text = either.map(|value| value.to_string_lossy().trim().to_owned());
            text.filter(|text| !text.is_empty())
        };
        let proxy = |name: &str| -> Result<Option<Proxy>, HubError> {
            let named = [name, "ALL_PROXY"]
                .into_iter()
                .find_map(|name| Some((name, text(name)?)));
            named.map(|(name, text)| Proxy::parse(name, &text)).transpose()
        };
        let direct = text("NO_PROXY").unwrap_or_default();
        Ok(Self {
            https: proxy("HTTPS_PROXY")?,
            http: proxy("HTTP_PROXY")?,
            direct: direct
                .split([',', ' '])
                .filter(|entry| !entry.is_empty())
                .map(str::to_ascii_lowercase)
                .collect(),
        })
    }

    /// The proxy on the way to `url`; `None` where there is none.
    pub fn on_the_way_to(&self, url: &Url) -> Option<&Proxy> {
        let proxy = if url.is_tls() { &self.https } else { &self.http };
        let is_direct = self.direct.iter().any(|entry| is_meant(entry, url));
        proxy.as_ref().filter(|_| !is_direct)
    }
}

/// Whether an entry of NO_PROXY means a server: `*`, a host, the end of one, either with a port.
fn is_meant(entry: &str, url: &Url) -> bool {
    if entry == "*" {
        return true;
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse().ok()),
        _ => (entry, None),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let name = name.trim_start_matches('*').trim_start_matches('.');
    let is_below = || {
        let above = url.host().strip_suffix(name);
        above.is_some_and(|above| above.ends_with('.'))
    };
    port.is_none_or(|port: u16| port == url.port()) && !name.is_empty() && (url.host() == name || is_below())
}

impl Proxy {
    fn parse(variable: &str, text: &str) -> Result<Self, HubError> {
        // What follows may hold a password: an error shows the variable's name alone.
        let wrong = |problem: String| HubError::Setting {
            name: variable.to_owned(),
            problem,
        };
        let rest = text.strip_prefix("http://").unwrap_or(text);
        if rest.contains("://") {
            let problem = "only proxies that are spoken to over HTTP work: expected http://host:port";
            return Err(wrong(problem.to_owned()));
        }
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let url = Url::parse(&format!("http://{place}")).map_err(wrong)?;
        let authorization = user.map(|user| format!("Basic {}", base64(&unquoted(user))));
        let authorization = authorization.map(|text| HeaderValue::from_str(&text)).transpose();
        Ok(Self {
            url,
            authorization: authorization.map_err(|error| wrong(error.to_string()))?,
        })
    }
}

/// Bytes of a text in which some are written `%XX`.
fn unquoted(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let code = behind.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => behind.get(2..).unwrap_or_default(),
            None => behind,
        };
    }
    bytes
}

/// Bytes as letters, six bits each.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for letter in 0..4 {
            let six = bits >> (18 - 6 * letter) & 63;
            match letter <= three.len() {
                true => text.push(char::from(LETTERS[six as usize])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, HubError> {
        Proxies::from_variables(&|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn way(proxies: &Proxies, url: &str) -> String {
        let url = Url::parse(url).unwrap();
        proxies
            .on_the_way_to(&url)
            .map_or_else(String::new, |proxy| proxy.url.with_port())
    }

    #[test]
    fn schemes_have_their_proxies_and_small_letters_come_first() {
        let both = proxies(&[
            ("https_proxy", "a:1"),
            ("HTTPS_PROXY", "b:2"),
            ("ALL_PROXY", "http://c:3/"),
        ])
        .unwrap();
        assert_eq!(way(&both, "https://hub.example"), "a:1");
        assert_eq!(way(&both, "http://hub.example"), "c:3");
        assert_eq!(way(&Proxies::default(), "https://hub.example"), "");
    }

    #[test]
    fn servers_that_no_proxy_names_are_reached_directly() {
        let set = [
            ("HTTPS_PROXY", "p:1"),
            (
                "NO_PROXY",
                "a.example, .b.example,*.c.example,d.example:444,[::1]",
            ),
        ];
        let some = proxies(&set).unwrap();
        for direct in [
            "https://a.example",
            "https://x.a.example",
            "https://b.example",
            "https://x.b.example",
            "https://x.c.example",
            "https://d.example:444",
            "https://[::1]",
        ] {
            assert_eq!(way(&some, direct), "", "{direct}");
        }
        for through in ["https://xa.example", "https://d.example", "https://example"] {
            assert_eq!(way(&some, through), "p:1", "{through}");
        }
        let all = proxies(&[("HTTPS_PROXY", "p:1"), ("no_proxy", "*")]).unwrap();
        assert_eq!(way(&all, "https://a.example"), "");
    }

    #[test]
    fn names_and_passwords_are_sent_and_not_shown() {
        let proxies = proxies(&[("HTTPS_PROXY", "http://Aladdin:open%20sesame@p:1")]).unwrap();
        let proxy = proxies.https.as_ref().unwrap();
        assert_eq!(
            proxy.authorization.as_ref().unwrap(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert!(!format!("{proxies:?}").contains("Aladdin"));
    }

    #[test]
    fn other_proxies_are_refused_without_telling_their_passwords() {
        let error = proxies(&[("HTTPS_PROXY", "socks5://me:secret@p:1")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("HTTPS_PROXY") && !error.contains("secret"),
            "{error}"
        );
    }
}
