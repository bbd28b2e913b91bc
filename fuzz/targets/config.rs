//! Image configs: what is read is written as it was understood.
#![no_main]

use kanna::image::ImageConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&layers, json)) = data.split_first() else { return };
    let layers = usize::from(layers % 4);
    let Ok(config) = ImageConfig::parse(json, "image", layers) else { return };
    assert_eq!(config.rootfs.diff_ids.len(), layers, "as many as the manifest has");
    let written = serde_json::to_vec(&config).expect("JSON");
    let again = ImageConfig::parse(&written, "image", layers).expect("what was written is read");
    assert_eq!(again, config);
    assert_eq!(serde_json::to_vec(&again).expect("JSON"), written);
    let run = config.run_config();
    let base = config.clone().into_base();
    assert_eq!(base.run_config().env, run.env);
    if let Some(platform) = config.platform() {
        assert_eq!(platform.rank(&platform).map(|_| ()), Some(()), "a platform suits itself");
    }
});
