//! The OpenAPI document of the two listeners (`docs/openapi.json`), made of what the routers serve.
//!
//! An [`Endpoint`] says in words what a handler does, and the routers take no handler without one, so the document has every
//! route and no other. Shapes come from the types themselves, statuses of refusals from [`crate::ErrorKind`].

pub(crate) mod control;
pub(crate) mod delivery;
mod endpoint;
pub(crate) mod schemas;
pub(crate) mod tus;

use std::collections::BTreeMap;

use utoipa::openapi::path::Paths;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::server::{Server, ServerBuilder, ServerVariableBuilder};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Components, Info, LicenseBuilder, OpenApi, OpenApiBuilder};

pub(crate) use self::endpoint::Endpoint;

/// The name of the security scheme for uploads.
const UPLOAD_TOKEN: &str = "uploadToken";

/// Who a listener is for, and where one is by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    Control,
    Delivery,
}

impl Listener {
    /// The tag of its endpoints, and its name in metrics.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Delivery => "delivery",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Control => {
                "For the platform and the operator, on a private address: whoever reaches it may ask. Tokens and \
                 deletions are by signed requests all the same."
            }
            Self::Delivery => "For uploaders and viewers. A token opens one upload or one content.",
        }
    }

    /// A server whose address the reader fills in; the defaults are those of the README.
    fn server(self) -> Server {
        let default = match self {
            Self::Control => "10.0.0.11:7301",
            Self::Delivery => "10.0.0.11:7201",
        };
        let address = ServerVariableBuilder::new()
            .default_value(default)
            .description(Some(format!("Host and port of the node's {} listener.", self.tag())));
        let about = format!("The {} listener of a node.", self.tag());
        ServerBuilder::new().url("http://{address}").description(Some(about)).parameter("address", address).build()
    }
}

/// The document of one listener as it serves it, with its own address.
pub(crate) fn of_listener(listener: Listener, endpoints: &[Endpoint], url: &str) -> OpenApi {
    let mut document = document(&[(listener, endpoints)]);
    document.servers = Some(vec![Server::new(url)]);
    document
}

/// The document of both. A path names the listener that has it.
pub(crate) fn of_both(control: &[Endpoint], delivery: &[Endpoint]) -> OpenApi {
    let listeners = [(Listener::Control, control), (Listener::Delivery, delivery)];
    let mut document = document(&listeners);
    for (path, item) in &mut document.paths.paths {
        let has = |endpoints: &[Endpoint]| endpoints.iter().any(|endpoint| endpoint.path() == *path);
        let servers = listeners.iter().filter(|(_, endpoints)| has(endpoints)).map(|(listener, _)| listener.server());
        item.servers = Some(servers.collect());
    }
    document
}

fn document(listeners: &[(Listener, &[Endpoint])]) -> OpenApi {
    let mut paths = Paths::new();
    let mut schemas = BTreeMap::new();
    for (listener, endpoints) in listeners {
        for endpoint in *endpoints {
            endpoint.write_to(paths.paths.entry(endpoint.path()).or_default(), listener.tag());
            schemas.extend(endpoint.schemas().iter().cloned());
        }
    }
    let mut components = Components::new();
    components.schemas = schemas;
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("43 characters of base64url")
        .description(Some(
            "The decrypted upload token of `POST /v1/tokens`. Playback tokens have no header: they stand in the path.",
        ))
        .build();
    components.add_security_scheme(UPLOAD_TOKEN, SecurityScheme::Http(token));
    let tags = listeners
        .iter()
        .map(|(listener, _)| TagBuilder::new().name(listener.tag()).description(Some(listener.about())).build());
    OpenApiBuilder::new()
        .info(info())
        .tags(Some(tags.collect::<Vec<_>>()))
        .paths(paths)
        .components(Some(components))
        .build()
}

fn info() -> Info {
    let mut info = Info::new("iMira node", env!("CARGO_PKG_VERSION"));
    info.description = Some(include_str!("introduction.md").to_owned());
    info.license = Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build());
    info
}
