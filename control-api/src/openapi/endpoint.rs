//! One endpoint in words: where it is, what it takes, what it answers.

use std::collections::BTreeMap;

use axum::routing::MethodFilter;
use utoipa::ToSchema;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AllOfBuilder, Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required};

use super::UPLOAD_TOKEN;
use crate::problem::{ErrorKind, PROBLEM_MEDIA_TYPE, Problem};

/// A named schema.
type Named = (String, RefOr<Schema>);

/// What a handler does. Made by [`Endpoint::get`] and its kin, and filled in by what follows.
pub(crate) struct Endpoint {
    method: HttpMethod,
    pattern: &'static str,
    also_head: bool,
    operation: Operation,
    schemas: Vec<Named>,
}

impl Endpoint {
    /// `pattern` is axum's. `id` is the operation's name, for generated clients.
    pub(crate) fn new(method: HttpMethod, pattern: &'static str, id: &str, summary: &str) -> Self {
        let operation = OperationBuilder::new().operation_id(Some(id)).summary(Some(summary));
        Self { method, pattern, also_head: false, operation: operation.build(), schemas: Vec::new() }
    }

    pub(crate) fn get(pattern: &'static str, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Get, pattern, id, summary)
    }

    pub(crate) fn post(pattern: &'static str, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Post, pattern, id, summary)
    }

    pub(crate) fn put(pattern: &'static str, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Put, pattern, id, summary)
    }

    /// What the summary does not say, as Markdown.
    pub(crate) fn about(self, text: &str) -> Self {
        self.with(|operation| operation.description(Some(text)))
    }

    /// The handler answers `HEAD`, too, and callers count on it.
    pub(crate) fn also_head(mut self) -> Self {
        self.also_head = true;
        self
    }

    /// The upload token in `Authorization`.
    pub(crate) fn needs_upload_token(self) -> Self {
        self.with(|operation| operation.security(SecurityRequirement::new(UPLOAD_TOKEN, Vec::<String>::new())))
    }

    pub(crate) fn in_path(self, name: &str, schema: Object, about: &str) -> Self {
        self.parameter(ParameterIn::Path, name, Required::True, schema, about)
    }

    /// An optional member of the query; [`Endpoint::in_query_required`] is the other.
    pub(crate) fn in_query(self, name: &str, schema: Object, about: &str) -> Self {
        self.parameter(ParameterIn::Query, name, Required::False, schema, about)
    }

    pub(crate) fn in_query_required(self, name: &str, schema: Object, about: &str) -> Self {
        self.parameter(ParameterIn::Query, name, Required::True, schema, about)
    }

    /// An optional header.
    pub(crate) fn in_header(self, name: &str, schema: Object, about: &str) -> Self {
        self.parameter(ParameterIn::Header, name, Required::False, schema, about)
    }

    fn parameter(self, place: ParameterIn, name: &str, required: Required, schema: Object, about: &str) -> Self {
        let parameter =
            ParameterBuilder::new().name(name).parameter_in(place).required(required).description(Some(about));
        self.with(|operation| operation.parameter(parameter.schema(Some(Schema::Object(schema)))))
    }

    /// A body of this media type.
    pub(crate) fn takes(self, media_type: &str, schema: impl Into<RefOr<Schema>>, about: &str) -> Self {
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let body = RequestBodyBuilder::new().description(Some(about)).required(Some(Required::True));
        self.with(|operation| operation.request_body(Some(body.content(media_type, content).build())))
    }

    /// A body of this media type that may be left out.
    pub(crate) fn takes_optionally(self, media_type: &str, schema: impl Into<RefOr<Schema>>, about: &str) -> Self {
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let body = RequestBodyBuilder::new().description(Some(about)).content(media_type, content).build();
        self.with(|operation| operation.request_body(Some(body)))
    }

    /// None of its answers has a body.
    pub(crate) fn bodiless(self) -> Self {
        Self { operation: without_bodies(self.operation), ..self }
    }

    /// A body of JSON in the shape of `T`.
    pub(crate) fn takes_json<T: ToSchema>(mut self, about: &str) -> Self {
        let schema = self.named::<T>();
        self.takes("application/json", schema, about)
    }

    /// Success with JSON in the shape of `T`.
    pub(crate) fn answers_json<T: ToSchema>(mut self, status: u16, about: &str) -> Self {
        let schema = self.named::<T>();
        self.answers(status, about, "application/json", schema)
    }

    /// Success with another body.
    pub(crate) fn answers(self, status: u16, about: &str, media_type: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        let content = ContentBuilder::new().schema(Some(schema)).build();
        self.response(status, ResponseBuilder::new().description(about).content(media_type, content).build())
    }

    /// An answer without a body, or one whose headers are described: see [`header`].
    pub(crate) fn response(self, status: u16, response: Response) -> Self {
        self.with(|operation| operation.response(status.to_string(), response))
    }

    /// The errors, by their statuses.
    pub(crate) fn refuses(mut self, kinds: &[ErrorKind]) -> Self {
        self.named::<Problem>();
        let mut by_status = BTreeMap::<u16, Vec<ErrorKind>>::new();
        for kind in kinds {
            by_status.entry(kind.status()).or_default().push(*kind);
        }
        by_status.into_iter().fold(self, |endpoint, (status, kinds)| endpoint.response(status, refusal(status, &kinds)))
    }

    /// A reference to the schema of `T`, which goes into the document with all that it names.
    pub(crate) fn named<T: ToSchema>(&mut self) -> RefOr<Schema> {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        RefOr::Ref(Ref::from_schema_name(T::name()))
    }

    fn with(self, change: impl FnOnce(OperationBuilder) -> OperationBuilder) -> Self {
        Self { operation: change(self.operation.into()).build(), ..self }
    }

    /// axum's pattern of the path.
    pub(crate) fn pattern(&self) -> &'static str {
        self.pattern
    }

    /// The path as OpenAPI writes it, which knows no `{*rest}`.
    pub(crate) fn path(&self) -> String {
        self.pattern.replace("{*", "{")
    }

    /// For axum, which adds `HEAD` to `GET` by itself.
    pub(crate) fn method(&self) -> MethodFilter {
        match self.method {
            HttpMethod::Get => MethodFilter::GET,
            HttpMethod::Put => MethodFilter::PUT,
            HttpMethod::Post => MethodFilter::POST,
            HttpMethod::Delete => MethodFilter::DELETE,
            HttpMethod::Options => MethodFilter::OPTIONS,
            HttpMethod::Head => MethodFilter::HEAD,
            HttpMethod::Patch => MethodFilter::PATCH,
            HttpMethod::Trace => MethodFilter::TRACE,
        }
    }

    /// The schemas that the operation names.
    pub(crate) fn schemas(&self) -> &[Named] {
        &self.schemas
    }

    /// Writes the operation into the entry of its path. What both listeners have is there once, under both tags.
    pub(crate) fn write_to(&self, item: &mut PathItem, tag: &str) {
        if self.also_head {
            tagged(&mut item.head, head_of(self.operation.clone()), tag);
        }
        let place = match self.method {
            HttpMethod::Get => &mut item.get,
            HttpMethod::Put => &mut item.put,
            HttpMethod::Post => &mut item.post,
            HttpMethod::Delete => &mut item.delete,
            HttpMethod::Options => &mut item.options,
            HttpMethod::Head => &mut item.head,
            HttpMethod::Patch => &mut item.patch,
            HttpMethod::Trace => &mut item.trace,
        };
        tagged(place, self.operation.clone(), tag);
    }
}

fn tagged(place: &mut Option<Operation>, operation: Operation, tag: &str) {
    place.get_or_insert(operation).tags.get_or_insert_default().push(tag.to_owned());
}

/// The same without bodies.
fn head_of(mut get: Operation) -> Operation {
    get.operation_id = get.operation_id.map(|id| format!("{id}_head"));
    get.summary = get.summary.map(|summary| format!("{summary}: the headers only"));
    without_bodies(get)
}

fn without_bodies(mut operation: Operation) -> Operation {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.content.clear();
        }
    }
    operation
}

/// The answer to what is refused with `status`: a problem of one of these types.
fn refusal(status: u16, kinds: &[ErrorKind]) -> Response {
    let about: Vec<_> = kinds.iter().map(|kind| format!("`{}`: {}.", kind.name(), kind.title())).collect();
    let types = string().enum_values(Some(kinds.iter().map(|kind| kind.urn())));
    let narrowed = ObjectBuilder::new().property("type", types);
    let schema = AllOfBuilder::new().item(Ref::from_schema_name(Problem::name())).item(narrowed);
    let content = ContentBuilder::new().schema(Some(Schema::from(schema.build()))).build();
    let response = ResponseBuilder::new().description(about.join(" ")).content(PROBLEM_MEDIA_TYPE, content);
    match status {
        // RFC 9110 §15.5.2.
        401 => response.header("WWW-Authenticate", header(string().build(), "How to sign in: `Bearer`.")).build(),
        _ => response.build(),
    }
}

/// A header of an answer.
pub(crate) fn header(schema: Object, about: &str) -> Header {
    HeaderBuilder::new().schema(Some(Schema::Object(schema))).description(Some(about)).build()
}

/// A text.
pub(crate) fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}
