//! Data that is not what the hub lists never reaches a folder that looks like a model.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hub::{Files, Hub, listing, model, sha256, small_model};
use crate::server::Reply;

const LENGTH: usize = 10_000;

fn blobs(hub: &Hub) -> Vec<String> {
    let entries = fs::read_dir(hub.folder().join("blobs"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A hub whose contents go through `change` in the first `times` answers.
fn lying(times: usize, change: impl Fn(&mut Reply) + Send + Sync + 'static) -> Hub {
    let turn = AtomicUsize::new(0);
    Hub::start_changed(small_model(LENGTH), move |asked, mut reply| {
        if asked.target.contains("signature") && turn.fetch_add(1, Ordering::SeqCst) < times {
            change(&mut reply);
        }
        reply
    })
}

fn is_content(name: &str) -> bool {
    name.starts_with(&sha256(&small_model(LENGTH)["model.safetensors"]))
}

#[test]
fn a_changed_byte_is_noticed_and_the_file_comes_once_more() {
    let hub = lying(1, |reply| reply.body[LENGTH / 2] ^= 1);
    hub.assert_whole(&hub.pull().unwrap());
    assert_eq!(hub.store.asked().len(), 2);
}

#[test]
fn a_file_that_is_another_one_twice_is_refused_and_removed() {
    type Lie = (&'static str, fn(&mut Reply));
    let changes: [Lie; 4] = [
        ("checksum", |reply| reply.body[0] ^= 1),
        ("content-length", |reply| reply.body.push(0)),
        ("content-length", |reply| reply.body.truncate(LENGTH - 1)),
        ("got more", |reply| {
            reply.body.push(0);
            reply.without_length = true;
        }),
    ];
    for (word, change) in changes {
        let hub = lying(usize::MAX, change);
        let error = hub.refusal();
        assert!(
            error.contains("model.safetensors") && error.contains(word),
            "{error}"
        );
        assert!(
            hub.has_no_model() && !blobs(&hub).iter().any(|name| is_content(name)),
            "{error}"
        );
        assert_eq!(hub.store.asked().len(), 2, "{word}");
    }
}

#[test]
fn a_part_that_is_damaged_or_too_long_costs_one_more_try() {
    for part in [vec![7; 5000], vec![7; LENGTH], vec![7; LENGTH + 1]] {
        let hub = Hub::start(small_model(LENGTH));
        fs::create_dir_all(hub.folder().join("blobs")).unwrap();
        let name = format!("{}.incomplete", sha256(&hub.files["model.safetensors"]));
        fs::write(hub.folder().join("blobs").join(name), part).unwrap();
        hub.assert_whole(&hub.pull().unwrap());
    }
}

#[test]
fn a_content_of_the_wrong_length_in_the_cache_comes_again() {
    let hub = Hub::start(small_model(LENGTH));
    let blob = hub
        .folder()
        .join("blobs")
        .join(sha256(&hub.files["model.safetensors"]));
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::write(&blob, "half").unwrap();
    hub.assert_whole(&hub.pull().unwrap());
}

#[test]
fn a_range_that_was_not_asked_for_is_not_taken() {
    let turn = AtomicUsize::new(0);
    let hub = Hub::start_changed(small_model(LENGTH), move |asked, mut reply| {
        if asked.target.contains("signature") {
            match turn.fetch_add(1, Ordering::SeqCst) {
                0 => reply.cut = Some(100),
                1 => reply = reply.with("content-range", format!("bytes 0-99/{LENGTH}")),
                _ => {}
            }
        }
        reply
    });
    hub.assert_whole(&hub.pull().unwrap());
}

#[test]
fn a_hub_that_announces_another_file_than_it_lists_is_refused() {
    let hub = Hub::start_changed(small_model(LENGTH), |_, reply| match reply.status {
        302 => reply.with("x-linked-etag", format!("\"{}\"", sha256(b"other"))),
        _ => reply,
    });
    let error = hub.refusal();
    assert!(error.contains("announced") && hub.has_no_model(), "{error}");
}

#[test]
fn names_that_leave_the_folder_bring_nothing() {
    for hostile in [
        "../../../escape.safetensors",
        "/tmp/escape.safetensors",
        "additional_chat_templates/../../x.jinja",
    ] {
        let mut files = model();
        files.insert(hostile.to_owned(), b"x".to_vec());
        let hub = Hub::start(files);
        let error = hub.refusal();
        assert!(error.contains("could leave the folder"), "{error}");
        assert_eq!(hub.front.asked().len(), 1, "the list alone was asked for");
        assert!(fs::read_dir(hub.dir.path()).unwrap().next().is_none());
    }
}

#[test]
fn an_index_that_names_what_is_elsewhere_is_refused() {
    for shard in ["../escape.safetensors", "/etc/passwd", "missing.safetensors"] {
        let mut files: Files = model();
        let index = serde_json::json!({"weight_map": {"a": shard}});
        files.insert(
            "model.safetensors.index.json".to_owned(),
            index.to_string().into_bytes(),
        );
        let hub = Hub::start(files);
        let error = hub.refusal();
        assert!(
            error.contains("index") && error.contains(shard) && hub.has_no_model(),
            "{error}"
        );
    }
}

#[test]
fn commits_and_checksums_that_are_paths_are_refused() {
    for key in ["sha", "checksum"] {
        let hub = Hub::start_changed(small_model(10), move |asked, reply| {
            match asked.target.starts_with("/api/") {
                true => {
                    let mut list = listing(&small_model(10));
                    match key {
                        "sha" => list["sha"] = "../../../../escape".into(),
                        _ => list["siblings"][0]["blobId"] = "../../../../escape".into(),
                    }
                    Reply::new(200, list.to_string())
                }
                false if asked.method == "HEAD" => Reply::new(200, "{}").with("etag", "\"../../escape\""),
                false => reply,
            }
        });
        assert!(
            hub.refusal().contains("the list of files"),
            "{key}: {}",
            hub.refusal()
        );
        assert!(hub.has_no_model());
    }
}
