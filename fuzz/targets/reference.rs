//! References: what is shown is read as the same, and a destination is pushed to where it says.
#![no_main]

use kanna::oci::{Destination, Platform, parse_reference};
use kanna::registry::LayoutPlace;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = parse_reference(text) {
        assert_eq!(parse_reference(&reference.to_string()).ok(), Some(reference), "{text:?}");
    }
    if let Ok(destination) = text.parse::<Destination>() {
        assert_eq!(destination.typed(), text);
        let again: Destination = destination.tagged().parse().expect("what is shown is read");
        assert_eq!((again.repository(), again.tag()), (destination.repository(), destination.tag()));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>().ok(), Some(platform), "{text:?}");
    }
    if let Ok(place) = text.parse::<LayoutPlace>() {
        assert_eq!(place.to_string().parse::<LayoutPlace>().ok(), Some(place), "{text:?}");
    }
});
