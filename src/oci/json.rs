//! JSON as image spec, registries and docker write it.

use std::collections::HashMap;

use serde::de::{DeserializeOwned, IgnoredAny};

/// Reads a JSON object. A list would pass for a struct without this: serde takes its members for the fields in their order.
pub fn parse_object<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice::<HashMap<String, IgnoredAny>>(json)?;
    serde_json::from_slice(json)
}
