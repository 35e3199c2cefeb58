//! Bearer tokens: what clients must send to be accepted.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use subtle::{Choice, ConstantTimeEq};

use crate::config::{BearerAuth, Text, Tokens};
use crate::reloadable::{FileSource, Reloadable, SystemResolver};

/// Why tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("cannot read {0}")]
    Read(String, #[source] std::io::Error),
    #[error("{0}")]
    Reference(String),
    #[error("{0} holds no token")]
    Empty(String),
    #[error("`{0}` is not the name of a header")]
    Header(String),
}

impl TokenError {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Read(..) | Self::Reference(_) | Self::Empty(_) => "token_file",
            Self::Header(_) => "token_header",
        }
    }
}

/// Verifies clients.
pub(crate) struct Authenticator {
    header: HeaderName,
    scheme: String,
    tokens: Reloadable<Tokens>,
}

impl FileSource for Tokens {
    type Content = Vec<String>;
    type Made = Vec<String>;
    type Error = TokenError;

    fn can_change(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Inline(tokens) => tokens.iter().any(Text::can_change),
        }
    }

    fn read(&self) -> Result<Vec<String>, TokenError> {
        match self {
            Self::File(path) => std::fs::read_to_string(path)
                .map(|text| vec![text])
                .map_err(|source| TokenError::Read(path.clone(), source)),
            Self::Inline(tokens) => {
                let tokens = tokens.iter().map(|token| token.read_again(&SystemResolver));
                let tokens: Result<_, _> = tokens.collect();
                tokens.map_err(TokenError::Reference)
            }
        }
    }

    /// An empty token would let everyone in.
    fn make(&self, content: Vec<String>) -> Result<Vec<String>, TokenError> {
        let place = match self {
            Self::File(path) => path,
            Self::Inline(_) => "the configuration",
        };
        let lines = content.iter().flat_map(|text| text.lines());
        let tokens = lines.map(str::trim).filter(|token| !token.is_empty());
        let tokens: Vec<_> = tokens.map(str::to_owned).collect();
        if tokens.is_empty() {
            return Err(TokenError::Empty(place.to_owned()));
        }
        Ok(tokens)
    }
}

impl Authenticator {
    /// Reads the tokens for the first time.
    ///
    /// # Errors
    /// If there are none.
    pub(crate) fn new(auth: &BearerAuth) -> Result<Self, TokenError> {
        let header = HeaderName::from_bytes(auth.header.as_bytes())
            .map_err(|_| TokenError::Header(auth.header.clone()))?;
        Ok(Self {
            header,
            scheme: auth.scheme.clone(),
            tokens: Reloadable::new(&auth.id, auth.tokens.clone(), None)?,
        })
    }

    /// Whether a request has one of the tokens. How long that takes tells nothing about them but their lengths.
    pub(super) async fn admits(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(&self.header).map(HeaderValue::as_bytes);
        let Some(given) = given.and_then(|value| without_scheme(value, &self.scheme)) else {
            return false;
        };
        let tokens = self.tokens.current().await;
        let none = Choice::from(0);
        let found = tokens
            .iter()
            .fold(none, |found, token| found | token.as_bytes().ct_eq(given));
        found.into()
    }
}

/// What follows the scheme, which is the same in upper and lower case (RFC 9110, section 11.1).
fn without_scheme<'v>(value: &'v [u8], scheme: &str) -> Option<&'v [u8]> {
    if scheme.is_empty() {
        return Some(value);
    }
    let (start, rest) = value.split_at_checked(scheme.len())?;
    let token = rest.strip_prefix(b" ")?;
    start
        .eq_ignore_ascii_case(scheme.as_bytes())
        .then_some(token)
}
