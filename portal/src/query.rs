//! What an address says after its question mark.
//!
//! A filter that cannot be parsed is refused with 400 and its name, never left out: whoever asked for one customer's payments
//! must not get everybody's. The API also refuses parameters that it does not know, for the same reason; pages do not, because
//! other sites append their own to links. A control character is refused wherever it stands: no filter has one, and databases
//! differ in what they make of a NUL (SQLite's LIKE ends there, so that it would match everything).

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::de::{self, DeserializeOwned, Visitor};

use crate::error::{ApiError, Failure, PageError};

/// Characters of a refused value that are shown.
const SHOWN_CHARS: usize = 60;

/// The query of a page's address.
#[derive(Debug)]
pub(crate) struct PageQuery<T>(pub(crate) T);

/// The query of an address of the API.
#[derive(Debug)]
pub(crate) struct ApiQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for PageQuery<T> {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<PageQuery<T>, PageError> {
        #[cfg(test)]
        tests::note(parts, field_names::<T>());
        let given = pairs(&parts.uri)?;
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(PageQuery(query)),
            Err(error) => Err(refusal(&error, &given).into()),
        }
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<ApiQuery<T>, ApiError> {
        #[cfg(test)]
        tests::note(parts, field_names::<T>());
        if let Some(WasRead(was_read)) = parts.extensions.get() {
            was_read.store(true, Ordering::Relaxed);
        }
        let names = field_names::<T>();
        let given = pairs(&parts.uri)?;
        if let Some((name, _)) = given.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            return Err(unknown(name, names).into());
        }
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(ApiQuery(query)),
            Err(error) => Err(refusal(&error, &given).into()),
        }
    }
}

/// The parameters of an address, none of which holds a control character.
fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Failure> {
    let Query(given) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| refusal(&error, &[]))?;
    for (name, value) in &given {
        if name.chars().chain(value.chars()).any(char::is_control) {
            let name = cut(name).escape_debug().to_string();
            return Err(wrong(&name, value, "a text without control characters"));
        }
    }
    Ok(given)
}

fn refusal(error: &QueryRejection, given: &[(String, String)]) -> Failure {
    let text = error.body_text();
    // The rest names the parameter.
    let why = text.split_once(": ").map_or(text.as_str(), |(_, why)| why);
    let named = why.split_once(": ").and_then(|(name, why)| {
        let (_, value) = given.iter().find(|(known, _)| known == name)?;
        Some((name, value, why))
    });
    // As the standard library says it of whole numbers.
    if let Some((name, value, "invalid digit found in string" | "number too large to fit in target type")) = named {
        return wrong(name, value, "a whole number, not negative and not too large");
    }
    Failure::BadRequest(format!("The address cannot be understood: {why}."))
}

fn unknown(name: &str, names: &[&str]) -> Failure {
    let known = match names {
        [] => "it takes none".to_owned(),
        names => format!("they are {}", names.join(", ")),
    };
    Failure::BadRequest(format!("“{}” is no parameter of this address: {known}.", cut(name)))
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

/// A filter's value that is refused: `expected` completes "“customer” is …".
pub(crate) fn wrong(name: &str, text: &str, expected: &str) -> Failure {
    Failure::BadRequest(format!("“{name}” is {expected}, not {:?}.", cut(text)))
}

/// A filter; none where the address leaves it out or empty, as forms send it.
///
/// # Errors
/// [`Failure::BadRequest`] with its name.
pub(crate) fn filter<T: FromStr>(name: &str, text: &str, expected: &str) -> Result<Option<T>, Failure> {
    match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| wrong(name, text, expected)),
    }
}

/// As [`filter`], where absent and empty are two things.
///
/// # Errors
/// [`Failure::BadRequest`] with its name.
pub(crate) fn optional<T: FromStr>(name: &str, text: Option<&str>, expected: &str) -> Result<Option<T>, Failure> {
    filter(name, text.unwrap_or(""), expected)
}

/// Set by whatever reads a query of the API.
#[derive(Clone, Debug)]
struct WasRead(Arc<AtomicBool>);

/// Refuses a query that nobody has read: an address that takes no parameters.
pub(crate) async fn refuse_unread_query(mut request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let name = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
        .ok()
        .and_then(|Query(given)| given.into_iter().next());
    let Some((name, _)) = name.filter(|_| reads) else {
        return next.run(request).await;
    };
    let was_read = Arc::new(AtomicBool::new(false));
    request.extensions_mut().insert(WasRead(was_read.clone()));
    let response = next.run(request).await;
    if was_read.load(Ordering::Relaxed) || !response.status().is_success() {
        return response;
    }
    ApiError(unknown(&name, &[])).into_response()
}

/// The names of a query's fields, as its type declares them.
fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It fails once it has said what it looks for.
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

/// Gives nothing, and keeps which fields it is asked for.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> de::Deserializer<'de> for FieldNames<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("only the names of fields are asked for"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
pub(crate) mod tests;
