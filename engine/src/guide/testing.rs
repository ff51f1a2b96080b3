//! How to test workflows and activities.
