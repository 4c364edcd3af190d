//! The delivery listener in words (`docs/api.md` §4).

use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Schema};
use utoipa::openapi::{ContentBuilder, RefOr};

use super::endpoint::{Endpoint, header, string};
use super::schemas::{anything, bytes, id_hex, integer, sha256_hex, token};
use crate::problem::ErrorKind;
use crate::types::{FragmentsResponse, UploadStatus};

/// What may be wrong with a token in a path, whatever is asked for with it.
const OF_TOKEN: &[ErrorKind] = &[
    ErrorKind::TokenUnknown,
    ErrorKind::TokenExpired,
    ErrorKind::TokenRevoked,
    ErrorKind::WrongContent,
    ErrorKind::NotFound,
    ErrorKind::PreconditionFailed,
    ErrorKind::RangeNotSatisfiable,
    ErrorKind::NotReady,
    ErrorKind::Deleted,
    ErrorKind::Unavailable,
    ErrorKind::Internal,
];

/// What besides may be wrong with a part of the content.
const OF_PART: &[ErrorKind] = &[ErrorKind::Busy, ErrorKind::WrongRendition, ErrorKind::OutsideLapse];

pub(crate) fn put_upload() -> Endpoint {
    upload(Endpoint::put("/v1/uploads/{upload}", "put_upload", "Send the file"))
        .about(
            "The body is the file, exactly as long as the `size` of the token request. It is on disk when the answer comes, \
             and processing goes on by itself.",
        )
        .needs_upload_token()
        .takes("application/octet-stream", bytes(), "The file.")
        .answers_json::<UploadStatus>(202, "All of it is on disk.")
        .refuses(&[
            ErrorKind::UploadEmpty,
            ErrorKind::UploadIncomplete,
            ErrorKind::TokenUnknown,
            ErrorKind::TokenExpired,
            ErrorKind::TokenRevoked,
            ErrorKind::WrongContent,
            ErrorKind::NotFound,
            ErrorKind::UploadExists,
            ErrorKind::Deleted,
            ErrorKind::UploadTooLarge,
            ErrorKind::Internal,
            ErrorKind::NoRoom,
            ErrorKind::UploadTerminated,
            ErrorKind::UploadExpired,
            ErrorKind::Busy,
        ])
}

pub(crate) fn upload_status() -> Endpoint {
    upload(Endpoint::get("/v1/uploads/{upload}", "upload_status", "How an upload is doing"))
        .about("Needs no token: whoever knows the upload id may read it.")
        .answers_json::<UploadStatus>(200, "Its status now.")
        .refuses(&[ErrorKind::NotFound])
}

pub(crate) fn upload_events() -> Endpoint {
    let mut endpoint =
        Endpoint::get("/v1/uploads/{upload}/events", "upload_events", "How an upload is doing, as it changes");
    let status = endpoint.named::<UploadStatus>();
    let event = ObjectBuilder::new()
        .property("event", string().enum_values(Some(["status"])))
        .property("data", string().content_media_type("application/json").content_schema(Some(status)))
        .required("event")
        .required("data")
        .description(Some("Each of the server-sent events."));
    upload(endpoint)
        .about("One event at once, then one at each change, at most four a second. The stream ends after `ready` or `rejected`.")
        .answers(200, "The events.", "text/event-stream", Schema::Object(event.build()))
        .refuses(&[ErrorKind::NotFound, ErrorKind::Busy])
}

pub(crate) fn index() -> Endpoint {
    let endpoint = Endpoint::get("/v1/t/{token}/index", "index", "The index block of the content")
        .about("CBOR as in `docs/index-format.md`. Its SHA-256 is the content key.");
    opened(endpoint, "application/cbor", bytes(), &[])
}

pub(crate) fn page() -> Endpoint {
    let endpoint = Endpoint::get("/v1/t/{token}/pages/{id}", "index_page", "An index page of the content")
        .about("For the content that its index block does not hold alone. CBOR as in `docs/index-format.md`.")
        .in_path("id", sha256_hex(), "The page's block id.");
    opened(endpoint, "application/cbor", bytes(), &[])
}

pub(crate) fn fragments() -> Endpoint {
    let mut endpoint =
        Endpoint::get("/v1/t/{token}/fragments", "fragments", "All data blocks in order, with their SHA-256");
    let schema = endpoint.named::<FragmentsResponse>();
    opened(endpoint, "application/json", schema, &[ErrorKind::Busy])
}

pub(crate) fn block() -> Endpoint {
    let endpoint = Endpoint::get("/v1/t/{token}/blocks/{id}", "block", "A data block of the content").in_path(
        "id",
        sha256_hex(),
        "The block's id: the SHA-256 of what is answered.",
    );
    opened(endpoint, "application/octet-stream", bytes(), OF_PART)
}

pub(crate) fn file() -> Endpoint {
    let endpoint = Endpoint::get("/v1/t/{token}/files/{*path}", "file", "A file of the content")
        .about("`files/master.m3u8` is where players begin. The index lists what there is.")
        .in_path("path", string().min_length(Some(1)).build(), "The file's path in the index; may have slashes.");
    // A playlist, a segment, an MP4: the media type is the file's own.
    opened(endpoint, "*/*", bytes(), OF_PART)
}

fn upload(endpoint: Endpoint) -> Endpoint {
    endpoint.in_path("upload", id_hex(), "The upload id, which is the publication id.")
}

/// What a token in the path opens: whole, in part, or not when the caller has it.
fn opened(endpoint: Endpoint, media_type: &str, schema: impl Into<RefOr<Schema>>, besides: &[ErrorKind]) -> Endpoint {
    let whole = ContentBuilder::new().schema(Some(schema)).build();
    // Half of a JSON document has no shape.
    let part = if media_type == "application/json" { anything() } else { bytes() };
    let part = ContentBuilder::new().schema(Some(Schema::Object(part))).build();
    let of_part = "Which bytes, and of how many: `bytes 0-99/1000`.";
    endpoint
        .also_head()
        .in_path("token", token(), "The playback token, or the upload token of an upload that is ready.")
        .in_header(
            "Range",
            string().build(),
            "One range: `bytes=0-99`, `bytes=100-` or `bytes=-100`. Several are ignored, and so is one of a HEAD.",
        )
        .in_header("If-Range", string().build(), "An `ETag`: the range is heeded only if it is the present one.")
        .in_header("If-Match", string().build(), "An `ETag`: the answer is 412 if it is not the present one.")
        .in_header("If-None-Match", string().build(), "An `ETag`: the answer is 304 if it is the present one.")
        .response(200, described("The whole.").content(media_type, whole).build())
        .response(
            206,
            described("The range.")
                .content(media_type, part)
                .header("Content-Range", header(string().build(), of_part))
                .build(),
        )
        .response(304, described("The caller has it.").build())
        .refuses(&[OF_TOKEN, besides].concat())
}

/// The headers of every success.
fn described(about: &str) -> ResponseBuilder {
    let text = || string().build();
    let seconds = integer(0, None).build();
    ResponseBuilder::new()
        .description(about)
        .header("ETag", header(text(), "The SHA-256 of a block; content key and path of a file."))
        .header("Accept-Ranges", header(text(), "`bytes`"))
        .header("Cache-Control", header(text(), "`private`, and no longer than the token lives."))
        .header("Imira-Token-Remaining", header(seconds, "Whole seconds that the token still lives."))
        .header("Imira-Node", header(text(), "`PeerId` of the answering node."))
}
