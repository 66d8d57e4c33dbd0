//! Addresses, as far as downloads need them.

use hyper::Uri;
use hyper::header::HeaderValue;

/// `http` or `https`, a host, a port, a path with its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    is_tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// Reads a whole address; `Err` says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("expected an address like https://host")?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            other => return Err(format!("`{other}` is not spoken, only http and https")),
        };
        // What stands behind `#` is not sent.
        let whole = rest.split('#').next().unwrap_or_default();
        let uri: Uri = format!("http://{whole}")
            .parse()
            .map_err(|error| format!("no address: {error}"))?;
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or("no host in it")?;
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err("it holds a name before the host (`@`), which is not sent".to_owned());
        }
        Ok(Self {
            is_tls,
            host: host.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(usual_port(is_tls)),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// Where a redirection from here leads.
    pub fn join(&self, location: &str) -> Result<Self, String> {
        let scheme = if self.is_tls { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        if location.contains("://") && !location.starts_with('/') {
            return Self::parse(location);
        }
        let path = match location.starts_with('/') {
            true => location.to_owned(),
            false => format!("{}/{location}", self.folder()),
        };
        Self::parse(&format!("{scheme}://{}{path}", self.authority()))
    }

    /// The path up to its last `/`, without the query.
    fn folder(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// Whether it is spoken to under TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The host as a system resolves it: an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path and its query, as a server is asked for it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host:port`.
    pub fn with_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The host, and the port where it is not the usual one.
    pub fn authority(&self) -> String {
        match self.port == usual_port(self.is_tls) {
            true => self.host.clone(),
            false => self.with_port(),
        }
    }

    /// The header `host`.
    pub fn host_header(&self) -> Result<HeaderValue, String> {
        HeaderValue::from_str(&self.authority()).map_err(|error| error.to_string())
    }

    /// The whole address without its query, which may hold secrets of a redirection.
    pub fn shown(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{scheme}://{}{path}", self.authority())
    }

    /// The whole address.
    pub fn whole(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// Whether both are one server: secrets for one are safe with the other.
    pub fn is_same_server(&self, other: &Self) -> bool {
        (self.is_tls, &self.host, self.port) == (other.is_tls, &other.host, other.port)
    }
}

fn usual_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

/// A text as a part of a path: everything but letters, digits and `-._~` is written `%XX`. `keep` stays as it is.
pub fn quoted(text: &str, keep: char) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        let letter = char::from(byte);
        match letter.is_ascii_alphanumeric() || "-._~".contains(letter) || (letter == keep && byte.is_ascii())
        {
            true => quoted.push(letter),
            false => quoted += &format!("%{byte:02X}"),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Url::parse(text).map_or_else(|error| format!("error: {error}"), |url| url.whole())
    }

    #[test]
    fn addresses_are_read_and_others_refused() {
        assert_eq!(shown("HTTPS://Hub.example"), "https://hub.example/");
        assert_eq!(
            shown("http://[::1]:8080/a/b?c=%20d#e"),
            "http://[::1]:8080/a/b?c=%20d"
        );
        assert_eq!(Url::parse("http://[::1]:8080").unwrap().host(), "::1");
        for wrong in [
            "hub.example",
            "ftp://a",
            "https://",
            "http://me:secret@a/",
            "http://a b/",
        ] {
            assert!(shown(wrong).starts_with("error"), "{wrong}: {}", shown(wrong));
        }
    }

    #[test]
    fn redirections_lead_where_browsers_go() {
        let base = Url::parse("https://hub.example/org/name/resolve?x=1").unwrap();
        let to = |location: &str| base.join(location).unwrap().whole();
        assert_eq!(
            to("https://cdn.example:444/f?s=a://b"),
            "https://cdn.example:444/f?s=a://b"
        );
        assert_eq!(to("//cdn.example/f"), "https://cdn.example/f");
        assert_eq!(to("/api/f?to=http://x"), "https://hub.example/api/f?to=http://x");
        assert_eq!(to("f"), "https://hub.example/org/name/f");
        assert!(base.join("file:///etc/passwd").is_err());
    }

    #[test]
    fn only_the_same_scheme_host_and_port_are_the_same_server() {
        let url = |text: &str| Url::parse(text).unwrap();
        let hub = url("https://hub.example/a");
        assert!(hub.is_same_server(&url("https://HUB.example:443/b")));
        for other in [
            "http://hub.example",
            "https://hub.example:8443",
            "https://a.hub.example",
        ] {
            assert!(!hub.is_same_server(&url(other)), "{other}");
        }
    }

    #[test]
    fn parts_of_paths_are_quoted() {
        assert_eq!(quoted("refs/pr/1", '\0'), "refs%2Fpr%2F1");
        assert_eq!(quoted("a b/ü?#.txt", '/'), "a%20b/%C3%BC%3F%23.txt");
    }
}
