//! What a pull brings, and where it lies.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use dualgrain_hub::{Extent, Revision, find, pull};

use crate::hub::{COMMIT, Hub, Silent, Told, checksum, fronted, model, settings, small_model};
use crate::server::{Reply, Server};

#[test]
fn a_model_comes_with_what_it_needs_and_nothing_else() {
    let hub = Hub::start(model());
    let told = Told::default();
    let pulled = hub.pull_watched(&told, &AtomicBool::new(false)).unwrap();
    hub.assert_whole(&pulled);
    assert_eq!((pulled.commit.as_str(), pulled.from_cache), (COMMIT, false));
    let names: Vec<&str> = pulled.files.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "additional_chat_templates/tool_use.jinja",
        "config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    assert_eq!(names, expected);
    assert!(
        names
            .iter()
            .all(|name| told.files.lock().unwrap().iter().any(|file| file == name))
    );
    let (done, total) = *told.bytes.lock().unwrap().last().unwrap();
    assert_eq!((done, total), (pulled.size_bytes(), pulled.size_bytes()));
}

#[test]
fn the_cache_has_the_layout_of_the_hubs_library() {
    let hub = Hub::start(model());
    let pulled = hub.pull().unwrap();
    let folder = hub.folder();
    assert_eq!(pulled.path, folder.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    for (path, _) in &pulled.files {
        let blob = checksum(path, &hub.files[path]);
        assert!(folder.join("blobs").join(&blob).is_file());
        #[cfg(unix)]
        {
            let up = "../".repeat(2 + path.matches('/').count());
            let link = fs::read_link(pulled.path.join(path)).unwrap();
            assert_eq!(link, PathBuf::from(format!("{up}blobs/{blob}")));
        }
    }
    let blobs: Vec<_> = fs::read_dir(folder.join("blobs")).unwrap().collect();
    assert_eq!(blobs.len(), pulled.files.len(), "nothing else is left");
}

#[test]
fn what_is_there_does_not_come_again_and_is_found_without_the_hub() {
    let mut hub = Hub::start(model());
    let first = hub.pull().unwrap();
    hub.front.forget();
    hub.store.forget();
    let second = hub.pull().unwrap();
    assert!(second.from_cache && second.path == first.path && second.files == first.files);
    assert_eq!(
        (hub.front.asked().len(), hub.store.asked().len()),
        (1, 0),
        "the list alone is asked for"
    );
    hub.settings.is_offline = true;
    hub.front.forget();
    let offline = hub.pull().unwrap();
    assert!(offline.from_cache && offline.path == first.path && offline.size_bytes() == first.size_bytes());
    assert_eq!(offline.files.len(), first.files.len());
    assert!(hub.front.asked().is_empty());
    let name = "org/name".parse().unwrap();
    assert_eq!(
        find(&name, &Revision::default(), hub.dir.path()),
        Some(first.path)
    );
}

#[test]
fn without_the_network_a_model_that_is_not_whole_is_refused() {
    let mut hub = Hub::start(model());
    hub.settings.is_offline = true;
    assert!(hub.refusal().contains("dualgrain pull org/name"));
    hub.settings.is_offline = false;
    let pulled = hub.pull().unwrap();
    fs::remove_file(pulled.path.join("model-00002-of-00002.safetensors")).unwrap();
    hub.settings.is_offline = true;
    assert!(hub.refusal().contains("not whole in the cache"));
}

#[test]
fn a_model_can_be_had_without_its_weights_and_is_then_not_taken_for_whole() {
    let hub = Hub::start(model());
    let (name, main) = ("org/name".parse().unwrap(), Revision::default());
    let watched = (&Silent as &dyn dualgrain_hub::Watch, &AtomicBool::new(false));
    let pulled = pull(&name, &main, Extent::WithoutWeights, &hub.settings, watched).unwrap();
    assert!(pulled.path.join("config.json").is_file() && hub.store.asked().is_empty());
    assert_eq!(find(&name, &main, hub.dir.path()), None);
    hub.assert_whole(&hub.pull().unwrap());
}

#[test]
fn revisions_are_asked_for_and_kept_by_their_names() {
    let hub = Hub::start(model());
    let (name, revision) = ("org/name".parse().unwrap(), "refs/pr/1".parse().unwrap());
    let watched = (&Silent as &dyn dualgrain_hub::Watch, &AtomicBool::new(false));
    pull(&name, &revision, Extent::Whole, &hub.settings, watched).unwrap();
    assert!(
        hub.front.asked()[0]
            .target
            .starts_with("/api/models/org/name/revision/refs%2Fpr%2F1")
    );
    assert_eq!(
        fs::read_to_string(hub.folder().join("refs/refs/pr/1")).unwrap(),
        COMMIT
    );
    let commit: Revision = COMMIT.parse().unwrap();
    assert!(
        find(&name, &commit, hub.dir.path()).is_some()
            && find(&name, &Revision::default(), hub.dir.path()).is_none()
    );
}

#[test]
fn lengths_and_checksums_come_from_the_files_where_the_list_has_none() {
    let hub = Hub::start_changed(model(), |asked, reply| match asked.target.starts_with("/api/") {
        true => {
            let mut list: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            for sibling in list["siblings"].as_array_mut().unwrap() {
                *sibling = serde_json::json!({"rfilename": sibling["rfilename"]});
            }
            Reply::new(200, list.to_string())
        }
        false => reply,
    });
    hub.assert_whole(&hub.pull().unwrap());
    assert!(
        hub.store.asked().iter().all(|asked| asked.method == "GET"),
        "the store is asked for contents alone"
    );
}

#[test]
fn two_pulls_at_once_fetch_every_content_once() {
    let slow = std::time::Duration::from_millis(300);
    let hub = Hub::start_changed(model(), move |asked, reply| {
        match asked.target.contains("signature") {
            true => Reply {
                silence: Some(slow),
                ..reply
            },
            false => reply,
        }
    });
    let pulled = std::thread::scope(|scope| {
        let pulls = [(); 3].map(|()| scope.spawn(|| hub.pull().unwrap()));
        pulls.map(|pull| pull.join().unwrap())
    });
    pulled.iter().for_each(|pulled| hub.assert_whole(pulled));
    assert_eq!(hub.store.asked().len(), 2, "two shards");
}

#[test]
fn hub_that_answers_with_relative_redirections_is_followed() {
    let files = small_model(1000);
    let kept = files.clone();
    let front = Server::start(
        move |asked| match asked.target.strip_prefix("/api/resolve-cache") {
            Some(rest) => {
                let mut asked = asked.clone();
                asked.target = rest.to_owned();
                let path = asked.target.rsplit('/').next().unwrap();
                Reply::new(200, kept[path].clone())
            }
            None if asked.target.contains("/resolve/") => {
                Reply::new(307, "").with("location", format!("/api/resolve-cache{}", asked.target))
            }
            None => fronted(&kept, "", asked),
        },
    );
    let hub = Hub::start(files);
    let mut settings = settings(&front.url(), hub.dir.path());
    settings.token = None;
    let watched = (&Silent as &dyn dualgrain_hub::Watch, &AtomicBool::new(false));
    let pulled = pull(
        &"org/name".parse().unwrap(),
        &Revision::default(),
        Extent::Whole,
        &settings,
        watched,
    );
    hub.assert_whole(&pulled.unwrap());
}
