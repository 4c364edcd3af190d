//! Resumable uploads in words (`docs/api.md` §4).

use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::response::{Response, ResponseBuilder};

use super::endpoint::{Endpoint, header, string};
use super::schemas::{bytes, id_hex, integer};
use crate::problem::ErrorKind;

const UPLOADS: &str = "/v1/uploads";
const UPLOAD: &str = "/v1/uploads/{upload}";
const PART: &str = "/v1/uploads/{upload}/parts/{part}";
const BODY_TYPE: &str = "application/offset+octet-stream";

/// What may be wrong with any request, and why an upload may be over.
const OF_ANY: &[ErrorKind] = &[
    ErrorKind::TusVersion,
    ErrorKind::TokenUnknown,
    ErrorKind::TokenRevoked,
    ErrorKind::WrongContent,
    ErrorKind::NotFound,
    ErrorKind::Deleted,
    ErrorKind::UploadExpired,
    ErrorKind::UploadTerminated,
    ErrorKind::Internal,
];
const OF_CREATION: &[ErrorKind] = &[
    ErrorKind::Invalid,
    ErrorKind::UploadEmpty,
    ErrorKind::UploadIncomplete,
    ErrorKind::UploadExists,
    ErrorKind::UploadTooLarge,
    ErrorKind::NoRoom,
];
const OF_BYTES: &[ErrorKind] = &[
    ErrorKind::Invalid,
    ErrorKind::UploadIncomplete,
    ErrorKind::FinalUpload,
    ErrorKind::WrongOffset,
    ErrorKind::UploadExists,
    ErrorKind::UploadTooLarge,
    ErrorKind::UnsupportedMediaType,
    ErrorKind::UploadLocked,
    ErrorKind::ChecksumMismatch,
    ErrorKind::Busy,
    ErrorKind::NoRoom,
];

pub(crate) fn create_any() -> Endpoint {
    create(Endpoint::post(UPLOADS, "create_upload", "Begin a resumable upload"))
        .about(
            "tus 1.0.0, with the extensions creation, creation-with-upload, expiration, checksum, termination and \
                concatenation. The token says which upload it is.",
        )
        .refuses(&[OF_ANY, OF_CREATION, OF_BYTES].concat())
}

pub(crate) fn create_at() -> Endpoint {
    create(of_upload(Endpoint::post(UPLOAD, "create_upload_at", "Begin this resumable upload")))
        .about(
            "As `POST /v1/uploads`. `X-HTTP-Method-Override` makes it a `PATCH`, `DELETE` or `HEAD`, which has that \
             method's answers then.",
        )
        .in_header("X-HTTP-Method-Override", string().build(), "The method that is meant.")
        .response(200, state("As of `HEAD`."))
        .response(204, progress("As of `PATCH` or `DELETE`."))
        .refuses(&[OF_ANY, OF_CREATION, OF_BYTES].concat())
}

pub(crate) fn upload_offset() -> Endpoint {
    offset(of_upload(Endpoint::new(HttpMethod::Head, UPLOAD, "upload_offset", "Where a resumable upload goes on")))
}

pub(crate) fn append_to_upload() -> Endpoint {
    append(of_upload(Endpoint::new(HttpMethod::Patch, UPLOAD, "append_to_upload", "Send the next bytes of the file")))
}

pub(crate) fn terminate_upload() -> Endpoint {
    terminate(of_upload(Endpoint::new(HttpMethod::Delete, UPLOAD, "terminate_upload", "End an upload")))
}

pub(crate) fn override_part() -> Endpoint {
    of_part(Endpoint::post(PART, "override_part", "PATCH, DELETE or HEAD of a part, for clients that cannot send them"))
        .in_header("X-HTTP-Method-Override", string().build(), "The method that is meant.")
        .response(200, state("As of `HEAD`."))
        .response(204, progress("As of `PATCH` or `DELETE`."))
        .refuses(&[OF_ANY, OF_BYTES].concat())
}

pub(crate) fn part_offset() -> Endpoint {
    offset(of_part(Endpoint::new(HttpMethod::Head, PART, "part_offset", "Where a part goes on")))
}

pub(crate) fn append_to_part() -> Endpoint {
    append(of_part(Endpoint::new(HttpMethod::Patch, PART, "append_to_part", "Send the next bytes of a part")))
}

pub(crate) fn terminate_part() -> Endpoint {
    terminate(of_part(Endpoint::new(HttpMethod::Delete, PART, "terminate_part", "Take a part away")))
}

fn of_upload(endpoint: Endpoint) -> Endpoint {
    of_tus(endpoint.in_path("upload", id_hex(), "The upload id, which is the publication id."))
}

fn of_part(endpoint: Endpoint) -> Endpoint {
    of_upload(endpoint).in_path("part", integer(1, None).build(), "The part's number, from its `Location`.")
}

fn of_tus(endpoint: Endpoint) -> Endpoint {
    endpoint.needs_upload_token().in_header("Tus-Resumable", string().build(), "`1.0.0`; needed.")
}

fn create(endpoint: Endpoint) -> Endpoint {
    let endpoint = if endpoint.pattern() == UPLOADS { of_tus(endpoint) } else { endpoint };
    endpoint
        .in_header("Upload-Length", integer(0, None).build(), "Bytes of the file or of the part.")
        .in_header("Upload-Metadata", string().build(), "Pairs of a key and a value in base64, separated by commas.")
        .in_header("Upload-Concat", string().build(), "`partial`, or `final;` and the URLs of the parts.")
        .in_header("Upload-Checksum", string().build(), "Of the body: `sha256 <base64>` or `sha1 <base64>`.")
        .takes_optionally(BODY_TYPE, bytes(), "The beginning of the file.")
        .response(
            201,
            ResponseBuilder::new()
                .description("It is there.")
                .header("Location", header(string().build(), "Where the bytes go."))
                .header("Upload-Offset", header(integer(0, None).build(), "Bytes that are on disk."))
                .header("Upload-Expires", header(string().build(), "Until when it may be sent."))
                .build(),
        )
}

fn offset(endpoint: Endpoint) -> Endpoint {
    endpoint.response(200, state("How far it is.")).refuses(OF_ANY).bodiless()
}

fn append(endpoint: Endpoint) -> Endpoint {
    endpoint
        .about("What came is on disk when the answer comes, and stays when the connection breaks. With the last byte processing begins by itself.")
        .in_header("Upload-Offset", integer(0, None).build(), "Where the bytes go; needed.")
        .in_header("Upload-Checksum", string().build(), "Of the body: `sha256 <base64>` or `sha1 <base64>`.")
        .takes(BODY_TYPE, bytes(), "The bytes.")
        .response(204, progress("They are on disk."))
        .refuses(&[OF_ANY, OF_BYTES].concat())
}

fn terminate(endpoint: Endpoint) -> Endpoint {
    let over = ResponseBuilder::new().description("It is over, and nothing of it is on disk.").build();
    endpoint.response(204, over).refuses(&[OF_ANY, &[ErrorKind::UploadExists]].concat())
}

fn progress(about: &str) -> Response {
    ResponseBuilder::new()
        .description(about)
        .header("Upload-Offset", header(integer(0, None).build(), "Bytes that are on disk."))
        .header("Upload-Expires", header(string().build(), "Until when the rest may be sent; not after the last byte."))
        .build()
}

fn state(about: &str) -> Response {
    let text = || string().build();
    ResponseBuilder::new()
        .description(about)
        .header(
            "Upload-Offset",
            header(integer(0, None).build(), "Bytes that are on disk; not while parts are joined."),
        )
        .header("Upload-Length", header(integer(0, None).build(), "Bytes that it will have."))
        .header("Upload-Expires", header(text(), "Until when the rest may be sent."))
        .header("Upload-Metadata", header(text(), "As it was given."))
        .header("Upload-Concat", header(text(), "`partial`, or `final;` and the parts."))
        .build()
}
