//! The API over HTTP: the routes of `control::server`, behind a guard, with a description that programs can read.
//!
//! `http` takes connections and limits them, `guard` decides who is answered at all, `token` is what a client has to show,
//! `metrics` counts, `openapi` describes the routes. Nothing here knows what a route does.

mod guard;
pub(crate) mod http;
pub(crate) mod metrics;
pub(crate) mod openapi;
mod token;
