//! Whether two workers are the same. A request that moves from one worker to another goes on with the same bits only where weights and settings
//! are the same. Dynamo's frontend compares a part of that, and leaves a worker that differs without requests and without a word to it: so
//! a worker looks for itself, and does not start beside others than its like.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use dynamo_runtime::component::Endpoint;
use dynamo_runtime::discovery::{DiscoveryInstance, DiscoveryQuery};
use dynamo_runtime::traits::DistributedRuntimeProvider;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Where a worker's card has its identity.
pub const KEY: &str = "dualgrain";
/// When a worker looks once more: two that started together saw nobody the first time.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// What decides answers, and whether the frontend takes two workers as one: names with values.
pub type Identity = Map<String, Value>;

/// The identity of the model in `dir` with settings of the command line, of which the first are the context and whether the model's own sampling
/// is ignored.
///
/// # Errors
/// A file that can not be read.
pub fn identity_of(dir: &Path, context_tokens: usize, ignore_defaults: bool) -> Result<Identity> {
    let has_port = std::env::var("DYN_SYSTEM_PORT").is_ok_and(|port| !port.is_empty());
    let identity = json!({
        "SHA-256 of weights and config.json": hash_of(dir, is_weights_or_config)?,
        "SHA-256 of tokenizer and template": hash_of(dir, is_text_file)?,
        // A program of other arithmetic would go on with other bytes.
        "arithmetic of the program": dualgrain::ARITHMETIC,
        "--context": context_tokens,
        "--ignore-defaults": ignore_defaults,
        // The card says where the frontend fetches the tokenizer.
        "DYN_SYSTEM_PORT is set": has_port,
    });
    match identity {
        Value::Object(identity) => Ok(identity),
        _ => unreachable!("an object was written"),
    }
}

/// SHA-256 over names and contents of files of a folder, by name.
fn hash_of(dir: &Path, belongs: fn(&str) -> bool) -> Result<String> {
    let mut hash = Sha256::new();
    for path in files(dir, belongs)? {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let of_file = hash_of_file(&path).with_context(|| path.display().to_string())?;
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(of_file);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn hash_of_file(path: &Path) -> std::io::Result<[u8; 32]> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn is_weights_or_config(name: &str) -> bool {
    let endings = [".safetensors", ".gguf"];
    endings.iter().any(|ending| name.ends_with(ending)) || ["config.json", "gguf.json"].contains(&name)
}

fn is_text_file(name: &str) -> bool {
    let parts = [
        "tokenizer",
        "chat_template",
        "generation_config",
        "special_tokens_map",
        "vocab",
        "merges",
    ];
    parts.iter().any(|part| name.starts_with(part))
}

fn files(dir: &Path, belongs: fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let entries = dir.read_dir().with_context(|| dir.display().to_string())?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| dir.display().to_string())?.path();
        if path.is_file()
            && path
                .file_name()
                .is_some_and(|name| belongs(&name.to_string_lossy()))
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Refuses to stand beside workers that serve something else under the same name.
///
/// # Errors
/// There is such a worker: what differs, and what to do. Or discovery does not answer.
pub async fn check_peers(endpoint: &Endpoint, served_name: &str, own: &Identity) -> Result<()> {
    match other_kind(endpoint, served_name, own).await? {
        Some((_, difference)) => Err(anyhow::anyhow!(difference)),
        None => Ok(()),
    }
}

/// Looks once more when the worker has been registered for a while; of two that differ the later one by number ends.
pub async fn check_again(endpoint: Endpoint, served_name: String, own: Identity) {
    tokio::time::sleep(SECOND_LOOK).await;
    let own_id = endpoint.drt().connection_id();
    // Discovery that does not answer is the runtime's affair by now.
    if let Ok(Some((instance, difference))) = other_kind(&endpoint, &served_name, &own).await
        && instance < own_id
    {
        tracing::error!("{difference}: the worker ends");
        std::process::exit(1);
    }
}

/// A worker that serves something else under the same name, and in what it differs.
async fn other_kind(endpoint: &Endpoint, served_name: &str, own: &Identity) -> Result<Option<(u64, String)>> {
    let id = endpoint.id();
    let query = DiscoveryQuery::ComponentModels {
        namespace: id.namespace,
        component: id.component,
    };
    let own_id = endpoint.drt().connection_id();
    let peers = endpoint.drt().discovery().list(query).await;
    for peer in peers.context("asking discovery for other workers")? {
        if let DiscoveryInstance::Model {
            instance_id,
            card_json,
            ..
        } = peer
            && instance_id != own_id
            && card_json.get("display_name").and_then(Value::as_str) == Some(served_name)
            && let Some(difference) = difference(&card_json, own)
        {
            let message = format!(
                "worker {instance_id:x} serves {served_name} too, but {difference}. Give both the same folder and the same options, or \
                 this one another --served-model-name and --component"
            );
            return Ok(Some((instance_id, message)));
        }
    }
    Ok(None)
}

/// In what a worker's card differs.
fn difference(card: &Value, own: &Identity) -> Option<String> {
    let theirs = card.pointer(&format!("/runtime_config/runtime_data/{KEY}"));
    let Some(theirs) = theirs.and_then(Value::as_object) else {
        return Some("it is no worker of dualgrain, or one of another version".to_owned());
    };
    let differs = |(name, value): &(&String, &Value)| theirs.get(*name) != Some(value);
    let (name, value) = own.iter().find(differs)?;
    let its = theirs.get(name).unwrap_or(&Value::Null);
    Some(format!("its {name} is {its}, here it is {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny");
        identity_of(&model, 2048, false).unwrap()
    }

    #[test]
    fn a_worker_like_this_one_is_told_from_all_others() {
        let own = identity();
        let card = |theirs: &Value| json!({ "runtime_config": { "runtime_data": { KEY: theirs } } });
        assert_eq!(difference(&card(&Value::Object(own.clone())), &own), None);
        assert!(
            difference(&json!({}), &own)
                .unwrap()
                .contains("no worker of dualgrain")
        );
        for name in own.keys() {
            let mut theirs = own.clone();
            theirs.insert(name.clone(), json!("something else"));
            let difference = difference(&card(&Value::Object(theirs)), &own).unwrap();
            assert!(difference.contains(name), "{difference}");
        }
    }

    #[test]
    fn a_changed_byte_or_name_changes_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let hash = || hash_of(folder.path(), is_weights_or_config).unwrap();
        write("a.safetensors", "12");
        let first = hash();
        write("notes.txt", "not of the model");
        assert_eq!(hash(), first);
        write("a.safetensors", "13");
        assert_ne!(hash(), first);
        write("a.safetensors", "12");
        write("b.safetensors", "");
        assert_ne!(hash(), first);
    }
}
