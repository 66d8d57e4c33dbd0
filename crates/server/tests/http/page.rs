//! The page at `/`.

use std::fs;
use std::path::Path;

use crate::client::Server;

#[test]
fn every_file_of_the_page_is_served_with_its_type_and_a_strict_policy() {
    let server = Server::usual();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
    let mut num_files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let (kind, address) = match name.rsplit_once('.').unwrap().1 {
            "html" => ("text/html; charset=utf-8", "/".to_owned()),
            "css" => ("text/css; charset=utf-8", format!("/{name}")),
            "js" => ("text/javascript; charset=utf-8", format!("/{name}")),
            _ => continue,
        };
        let reply = server.get(&address);
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some(kind)),
            "{name}"
        );
        assert_eq!(reply.body, fs::read(&path).unwrap(), "{name}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        num_files += 1;
    }
    assert!(num_files >= 3, "{num_files}");
}
