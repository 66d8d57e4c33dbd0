//! Who watches a download.

/// Who watches a download.
pub trait Watch {
    /// So many bytes of all are there; `file` is coming.
    fn bytes(&self, file: &str, done: u64, total: u64);
    /// A file is there; `is_new` where it was not before.
    fn file(&self, file: &str, size_bytes: u64, is_new: bool);
    /// Something a person should know.
    fn say(&self, line: &str);
}
