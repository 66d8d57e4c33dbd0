//! Whether two workers have the same model. A request that moves from one worker to another goes on with the same bits only where the weights
//! are the same, and Dynamo compares configuration and tokenizer, not weights.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dynamo_runtime::component::Endpoint;
use dynamo_runtime::discovery::{DiscoveryInstance, DiscoveryQuery};
use dynamo_runtime::traits::DistributedRuntimeProvider;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Where a worker's card has the hash.
pub const KEY: &str = "dualgrain_model_sha256";

/// SHA-256 over names and contents of a model folder's files that decide what is computed: weights, scales and configuration.
///
/// # Errors
/// A file that can not be read.
pub fn hash_of(dir: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for path in deciding_files(dir)? {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        let length = file
            .seek(SeekFrom::End(0))
            .and_then(|length| file.rewind().map(|()| length));
        let length = length.with_context(|| path.display().to_string())?;
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(length.to_le_bytes());
        update(&mut hash, file).with_context(|| path.display().to_string())?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn update(hash: &mut Sha256, mut file: File) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// Weights in either format and config.json, by name.
fn deciding_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = dir.read_dir().with_context(|| dir.display().to_string())?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| dir.display().to_string())?.path();
        let is_weights = path
            .extension()
            .is_some_and(|kind| kind == "safetensors" || kind == "gguf");
        let is_config = path
            .file_name()
            .is_some_and(|name| name == "config.json" || name == "gguf.json");
        if (is_weights || is_config) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Refuses to stand beside workers that serve another model under the same name.
///
/// # Errors
/// There is such a worker, or discovery does not answer.
pub async fn check_peers(endpoint: &Endpoint, served_name: &str, own_hash: &str) -> Result<()> {
    let id = endpoint.id();
    let query = DiscoveryQuery::ComponentModels {
        namespace: id.namespace,
        component: id.component,
    };
    let peers = endpoint
        .drt()
        .discovery()
        .list(query)
        .await
        .context("asking discovery for other workers")?;
    for peer in peers {
        let DiscoveryInstance::Model {
            instance_id,
            card_json,
            ..
        } = peer
        else {
            continue;
        };
        let name = card_json.get("display_name").and_then(Value::as_str);
        let hash = card_json
            .pointer(&format!("/runtime_config/runtime_data/{KEY}"))
            .and_then(Value::as_str);
        if let (Some(name), Some(hash)) = (name, hash)
            && name == served_name
            && hash != own_hash
        {
            bail!(
                "worker {instance_id:x} serves another model as {served_name}: its files have the SHA-256 {hash}, those of this \
                 folder {own_hash}. Give both the same folder, or this one another --served-model-name"
            );
        }
    }
    Ok(())
}
