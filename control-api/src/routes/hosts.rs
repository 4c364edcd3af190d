//! Who the control listener lets itself be called. A web page that its operator visits may have a name that suddenly means this
//! machine (DNS rebinding), and would then be of the same origin as the listener; the browser's `Host` gives it away.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;

use crate::problem::{ErrorKind, Problem};

/// Refuses requests whose `Host` is neither an IP address, nor `localhost`, nor one of `names` (`wrong-host`).
pub fn only_hosts(router: Router, names: &[String]) -> Router {
    let names: Arc<[String]> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    router.layer(from_fn(move |request: Request, next: Next| {
        let is_known = is_known(&request, &names);
        async move {
            match is_known {
                true => next.run(request).await,
                false => refusal().into_response(),
            }
        }
    }))
}

fn is_known(request: &Request, names: &[String]) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let header = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    // HTTP/2 and absolute targets name the host elsewhere.
    let Some(host) = request.uri().authority().map(|authority| authority.as_str()).or(header) else { return false };
    let bare = without_port(host).to_ascii_lowercase();
    let is_address = bare.parse::<IpAddr>().is_ok()
        || bare.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
    is_address || bare == "localhost" || names.contains(&bare)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn refusal() -> Problem {
    let detail = "This listener is asked by an IP address or as localhost. For another name, put it into control_names in config.toml.";
    Problem::new(ErrorKind::WrongHost, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn a_foreign_name_is_not_known() {
        let names = ["node.example".to_owned()];
        let known =
            |host: &str| is_known(&Request::builder().header("host", host).body(Body::empty()).unwrap(), &names);
        for host in
            ["127.0.0.1:7301", "10.0.0.1", "[::1]:7301", "[::1]", "localhost:7301", "LOCALHOST", "Node.Example:80"]
        {
            assert!(known(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:7301",
            "127.0.0.1.evil.example",
            "",
            "[::1",
            "x@127.0.0.1",
            "[evil]:1",
        ] {
            assert!(!known(host), "{host}");
        }
        assert!(!is_known(&Request::builder().body(Body::empty()).unwrap(), &names));
        let twice = Request::builder().header("host", "localhost").header("host", "evil.example");
        assert!(!is_known(&twice.body(Body::empty()).unwrap(), &names));
    }
}
