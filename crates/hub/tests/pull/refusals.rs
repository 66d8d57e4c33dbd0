//! What a hub refuses, and what is asked again.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hub::{Files, Hub, listing, model, small_model};
use crate::server::{Asked, Reply};

/// A hub that answers every request for the list so.
fn answering(reply: Reply) -> Hub {
    Hub::start_changed(small_model(100), move |asked, usual| {
        match asked.target.starts_with("/api/") {
            true => reply.clone(),
            false => usual,
        }
    })
}

fn refused(status: u16, code: &str) -> Reply {
    Reply::new(status, r#"{"error": "words of the hub"}"#).with("x-error-code", code)
}

#[test]
fn refusals_of_the_hub_say_what_to_do() {
    let cases = [
        (
            refused(401, "GatedRepo"),
            vec!["gated", "Ask for access", "/org/name"],
        ),
        (
            refused(403, "GatedRepo"),
            vec!["gated", "account whose token was sent"],
        ),
        (refused(401, "RepoNotFound"), vec!["no model org/name", "private"]),
        (refused(404, "RepoNotFound"), vec!["no model org/name"]),
        (refused(404, "RevisionNotFound"), vec!["no revision `main`"]),
        (refused(403, ""), vec!["HTTP 403", "words of the hub", "HF_TOKEN"]),
        (refused(451, ""), vec!["HTTP 451", "words of the hub"]),
        (Reply::new(407, ""), vec!["the proxy wants a name"]),
        (
            Reply::new(200, "<html>").with("content-type", "text/html; charset=utf-8"),
            vec!["web page", "proxy"],
        ),
        (
            Reply::new(200, "no JSON"),
            vec!["the list of files of org/name", "siblings"],
        ),
    ];
    for (reply, words) in cases {
        let hub = answering(reply);
        let error = hub.refusal();
        assert!(
            words.iter().all(|word| error.contains(word)),
            "{words:?}: {error}"
        );
        assert!(!error.contains("hf_secret"), "{error}");
        assert_eq!(hub.front.asked().len(), 1, "asking again is in vain: {error}");
    }
}

#[test]
fn without_a_token_refusals_say_how_to_send_one() {
    for code in ["GatedRepo", "RepoNotFound"] {
        let mut hub = answering(refused(401, code));
        hub.settings.token = None;
        let error = hub.refusal();
        assert!(
            error.contains("HF_TOKEN") && error.contains("/settings/tokens"),
            "{error}"
        );
    }
}

#[test]
fn a_page_in_the_place_of_a_file_is_named() {
    let hub = Hub::start_changed(small_model(100), |asked, reply| {
        match asked.target.contains("signature") {
            true => Reply::new(200, "<html>log in</html>").with("content-type", "text/html"),
            false => reply,
        }
    });
    let error = hub.refusal();
    assert!(error.contains("web page") && hub.has_no_model(), "{error}");
}

/// A hub that answers so the first `times` times, list and contents alike.
fn failing_first(times: usize, reply: Reply) -> Hub {
    let (list, content) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Hub::start_changed(small_model(100), move |asked: &Asked, usual| {
        let count = if asked.target.starts_with("/api/") {
            &list
        } else {
            &content
        };
        match count.fetch_add(1, Ordering::SeqCst) < times {
            true => reply.clone(),
            false => usual,
        }
    })
}

#[test]
fn trouble_that_passes_is_waited_for() {
    for reply in [
        Reply::new(500, ""),
        Reply::new(503, "busy"),
        Reply::new(429, "").with("retry-after", 1),
        Reply::new(429, "").with("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),
    ] {
        let hub = failing_first(2, reply);
        hub.assert_whole(&hub.pull().unwrap());
    }
}

#[test]
fn trouble_that_stays_ends_after_some_tries() {
    let hub = answering(Reply::new(500, "down for the day"));
    let error = hub.refusal();
    assert!(
        error.contains("HTTP 500: down for the day") && error.contains("run the same command"),
        "{error}"
    );
    assert_eq!(hub.front.asked().len(), 3);
}

#[test]
fn a_repository_that_holds_no_model_is_refused_before_anything_comes() {
    let with = |names: &[&str]| -> Files {
        names
            .iter()
            .map(|name| ((*name).to_owned(), b"{}".to_vec()))
            .collect()
    };
    let cases = [
        (
            with(&["config.json", "pytorch_model.bin"]),
            "pytorch_model.bin, which dualgrain does not read",
        ),
        (with(&["model.gguf", "README.md"]), "no config.json"),
        (
            with(&["adapter_config.json", "config.json", "adapter_model.safetensors"]),
            "an adapter",
        ),
    ];
    for (files, words) in cases {
        let hub = Hub::start(files);
        let error = hub.refusal();
        assert!(error.contains(words), "{error}");
        assert_eq!(hub.front.asked().len(), 1);
    }
}

#[test]
fn a_disk_that_is_too_small_is_told_before_the_first_byte() {
    let hub = Hub::start_changed(small_model(100), |asked, reply| {
        match asked.target.starts_with("/api/") {
            true => {
                let mut list = listing(&small_model(100));
                list["siblings"][1]["lfs"]["size"] = 1_000_000_000_000_000_000_u64.into();
                Reply::new(200, list.to_string())
            }
            false => reply,
        }
    });
    let error = hub.refusal();
    assert!(
        error.contains("the disk has") && error.contains("HF_HUB_CACHE"),
        "{error}"
    );
    assert_eq!(hub.front.asked().len(), 1);
}

#[test]
fn redirections_in_a_circle_end() {
    let hub = Hub::start_changed(model(), |asked, reply| match asked.target.contains("/resolve/") {
        true => Reply::new(302, "").with("location", &asked.target),
        false => reply,
    });
    assert!(hub.refusal().contains("never ends"));
}
