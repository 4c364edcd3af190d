//! Shapes that no derive knows: identifiers, problems, and what is no JSON.

use std::borrow::Cow;

use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use super::endpoint::string;
use crate::problem::Problem;
use crate::signing::MAX_REQUEST_BYTES;
use crate::types::{NodeId, Phase};

/// 64 lowercase hexadecimal digits: a block id, a content key, a fingerprint.
pub(crate) struct Sha256Hex;

/// 32 lowercase hexadecimal digits: a publication, a network.
pub(crate) struct IdHex;

/// `chunkstore_block::Reference`, whose crate knows no OpenAPI.
#[derive(ToSchema)]
#[schema(as = Reference)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) struct ReferenceSchema {
    /// SHA-256 of the platform's public key.
    #[schema(value_type = Sha256Hex)]
    platform: (),
    /// Which of its publications.
    #[schema(value_type = IdHex)]
    publication: (),
}

macro_rules! named_schema {
    ($type:ty, $name:literal, $schema:expr) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                RefOr::T(Schema::Object($schema.build()))
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    };
}

named_schema!(Sha256Hex, "Sha256Hex", string().pattern(Some("^[0-9a-f]{64}$")));
named_schema!(IdHex, "IdHex", string().pattern(Some("^[0-9a-f]{32}$")));
named_schema!(
    NodeId,
    "NodeId",
    string().pattern(Some("^[1-9A-HJ-NP-Za-km-z]{1,128}$")).description(Some("A libp2p PeerId in base58."))
);
named_schema!(
    Phase,
    "Phase",
    // No enum: new phases may come, and generated clients must bear them.
    string().pattern(Some("^[a-z]+$")).description(Some(
        "`waiting`, `receiving`, `probing`, `transcoding`, `storing`, `replicating`, `ready` or `rejected`; new ones may come before `ready`. \
         Nothing follows `ready` and `rejected`."
    ))
);
named_schema!(
    Problem,
    "Problem",
    ObjectBuilder::new()
        .property("type", string().pattern(Some("^urn:imira:error:[a-z-]+$")).description(Some("Which error. Stable.")))
        .property("title", string().description(Some("The same for every occurrence, for people.")))
        .property("status", integer(400, Some(599)).build())
        .property("detail", string().description(Some("Why, and what to do, for people.")))
        .required("type")
        .required("title")
        .required("status")
        .required("detail")
        .description(Some("Problem details, RFC 9457."))
);

/// The schema of `T`, for a parameter.
pub(crate) fn sha256_hex() -> Object {
    string().pattern(Some("^[0-9a-f]{64}$")).build()
}

/// A publication id, for a parameter.
pub(crate) fn id_hex() -> Object {
    string().pattern(Some("^[0-9a-f]{32}$")).build()
}

/// A token in a path.
pub(crate) fn token() -> Object {
    string().pattern(Some("^[A-Za-z0-9_-]{43}$")).build()
}

/// A JWS in compact form.
pub(crate) fn compact_jws(max_bytes: usize) -> Object {
    let pattern = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$";
    string().pattern(Some(pattern)).max_length(Some(max_bytes)).build()
}

/// The body of `POST /v1/tokens`.
pub(crate) fn token_request() -> Object {
    compact_jws(MAX_REQUEST_BYTES)
}

/// A whole number.
pub(crate) fn integer(least: i64, most: Option<i64>) -> ObjectBuilder {
    let format = SchemaFormat::KnownFormat(KnownFormat::Int64);
    let number = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)).format(Some(format));
    number.minimum(Some(least)).maximum(most)
}

/// Bytes as they are. OpenAPI 3.1 may say so by no type at all, too, but not every reader understands that.
pub(crate) fn bytes() -> Object {
    string().format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary))).build()
}

/// Whatever JSON, or a part of it.
pub(crate) fn anything() -> Object {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).build()
}
