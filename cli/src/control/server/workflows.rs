//! The workflows there are.

use axum::Json;
use serde_json::Value;

use super::{Answer, Named};
use crate::catalog::{self, Entry};

pub(super) async fn list() -> Json<&'static [Entry]> {
    Json(catalog::ALL)
}

pub(super) async fn schema(Named(name): Named) -> Answer<Json<Value>> {
    Ok(Json(catalog::schema(&name)?))
}
