//! Who asks: API keys, sessions, and the rule that a cookie changes something only from our own pages.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use control_api::{ErrorKind, Problem};
use reqwest::Url;
use serde::Deserialize;

use super::{ApiBody, read_json};
use crate::App;
use crate::secrets::{ApiKey, SessionToken};
use crate::store::User;
use crate::time::now;

/// Name of the session cookie.
const COOKIE: &str = "imira_session";

/// How long a session lasts, in seconds.
const SESSION_SECONDS: i64 = 30 * 24 * 60 * 60;

/// Whoever asks: a user, or nobody in particular. A wrong API key is an error; a stale cookie is nobody.
pub(crate) struct Viewer(pub(crate) Option<User>);

/// A user; everybody else is asked to sign in.
pub(crate) struct SignedIn(pub(crate) User);

impl FromRequestParts<Arc<App>> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if let Some(key) = bearer(&parts.headers)? {
            return Ok(Self(Some(user_of_key(app, &key).await?)));
        }
        // A request that another site made a browser send is treated as if it had no cookie.
        if changes_something(&parts.method) && !from_our_pages(&parts.headers, &app.config.public_url) {
            return Ok(Self(None));
        }
        match session_cookie(&parts.headers) {
            Some(token) => Ok(Self(app.store.user_by_session(&token.sha256(), now()).await?)),
            None => Ok(Self(None)),
        }
    }
}

impl FromRequestParts<Arc<App>> for SignedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Viewer(user) = Viewer::from_request_parts(parts, app).await?;
        user.map(Self).ok_or_else(|| {
            sign_in("Send an API key (`Authorization: Bearer ...`), or sign in on the platform's own page.")
        })
    }
}

#[derive(Deserialize)]
struct SignIn {
    api_key: String,
}

/// `POST /api/session`
pub(crate) async fn begin_session(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    ApiBody(body): ApiBody,
) -> Result<Response, Problem> {
    // A browser that another site sends here would sign its user in as somebody else.
    let browser = headers.contains_key("sec-fetch-site") || headers.contains_key(header::ORIGIN);
    if browser && !from_our_pages(&headers, &app.config.public_url) {
        return Err(sign_in("The request came from another site. Sign in on the platform's own page."));
    }
    let SignIn { api_key } = read_json(&body)?;
    let key = ApiKey::parse(&api_key).ok_or_else(wrong_key)?;
    let user = user_of_key(&app, &key).await?;
    let token = SessionToken::generate().map_err(|error| Problem::internal(&error))?;
    app.store.begin_session(&token.sha256(), user.id, now() + SESSION_SECONDS, now()).await?;
    Ok(with_cookie(&app, token.expose(), SESSION_SECONDS))
}

/// `DELETE /api/session`
pub(crate) async fn end_session(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    if let Some(token) = session_cookie(&headers)
        && from_our_pages(&headers, &app.config.public_url)
    {
        app.store.end_session(&token.sha256()).await?;
    }
    Ok(with_cookie(&app, "", 0))
}

async fn user_of_key(app: &App, key: &ApiKey) -> Result<User, Problem> {
    app.store.user_by_api_key(&key.sha256()).await?.ok_or_else(wrong_key)
}

fn wrong_key() -> Problem {
    sign_in("This API key is not known here.")
}

fn sign_in(detail: &str) -> Problem {
    Problem::new(ErrorKind::SignInRequired, detail)
}

fn with_cookie(app: &App, value: &str, max_age: i64) -> Response {
    let secure = if app.config.public_url.starts_with("https:") { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age}{secure}");
    let mut response = StatusCode::NO_CONTENT.into_response();
    // A token is base64url, so the value is always one; were it not, no cookie is set.
    if let Ok(mut cookie) = HeaderValue::from_str(&cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// The API key of the request; an error for an `Authorization` that is none.
fn bearer(headers: &HeaderMap) -> Result<Option<ApiKey>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let text = value.to_str().ok().and_then(|value| value.split_once(' '));
    match text {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => {
            ApiKey::parse(key.trim()).map(Some).ok_or_else(wrong_key)
        }
        _ => Err(sign_in("The Authorization header must be `Bearer <API key>`.")),
    }
}

fn session_cookie(headers: &HeaderMap) -> Option<SessionToken> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| if name == COOKIE { SessionToken::parse(value) } else { None })
}

fn changes_something(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether the browser says that our own page sent this. `SameSite=Strict` already keeps the cookie from other sites;
/// this also keeps it from other ports of the same host, which count as the same site.
fn from_our_pages(headers: &HeaderMap, public_url: &str) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let Some(origin) = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()) else {
        return false;
    };
    let ours = Url::parse(public_url).is_ok_and(|url| url.origin().ascii_serialization() == origin);
    // Opened under another name of this host (localhost for 127.0.0.1): the browser's own Host header is as good.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    ours || (host.is_some() && host == authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn only_our_own_pages_change_something() {
        let ours = |pairs: &[(&'static str, &str)]| from_our_pages(&headers(pairs), "https://video.example");
        assert!(ours(&[("origin", "https://video.example")]));
        assert!(ours(&[("sec-fetch-site", "same-origin"), ("origin", "https://video.example")]));
        assert!(ours(&[("origin", "http://localhost:7000"), ("host", "localhost:7000")]));
        assert!(!ours(&[]));
        assert!(!ours(&[("origin", "null"), ("host", "video.example")]));
        assert!(!ours(&[("origin", "https://evil.example"), ("host", "video.example")]));
        assert!(!ours(&[("origin", "https://video.example:8443"), ("host", "video.example")]));
        assert!(!ours(&[("sec-fetch-site", "same-site"), ("origin", "https://video.example")]));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let token = SessionToken::generate().unwrap();
        let found = session_cookie(&headers(&[("cookie", &format!("a=b; {COOKIE}={}; c", token.expose()))]));
        assert_eq!(found.unwrap().sha256(), token.sha256());
        assert!(session_cookie(&headers(&[("cookie", "imira_session=short")])).is_none());
    }

    #[test]
    fn other_schemes_are_refused() {
        assert!(bearer(&headers(&[("authorization", "Basic eDp5")])).is_err());
        assert!(bearer(&headers(&[])).unwrap().is_none());
    }
}
