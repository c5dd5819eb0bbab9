//! What an address says between its slashes.
//!
//! What cannot be read there is not found, as whatever else does not exist: axum would answer 400 in plain text, which neither
//! the pages nor the API's description know.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::auth::Rejection;
use crate::error::Failure;
use crate::state::AppState;

/// The parameters of an address, as the table of endpoints names them.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Path<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Path<T>, Rejection> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(values)) => Ok(Path(values)),
            // The handler asks for other parameters than its row has.
            Err(error) if error.status().is_server_error() => {
                let failure = Failure::internal("read the parameters of an address")(error.into());
                Err(Rejection::new(parts, failure))
            }
            Err(_) => Err(Rejection::new(parts, Failure::NotFound)),
        }
    }
}
