//! Trees: the entries of one directory, as one blob.

use std::ffi::OsStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::go_json;
use crate::id::Id;
use crate::node::Node;

/// The entries of one directory, sorted by the bytes of their names.
///
/// The format keeps a directory in one piece, so a directory with a million entries needs about 400 MiB of memory while
/// it is written or read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The entries.
    #[serde(deserialize_with = "nodes")]
    pub nodes: Vec<Node>,
}

/// Old versions of restic wrote `null` for an empty directory.
fn nodes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Node>, D::Error> {
    Option::<Vec<Node>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Tree {
    /// Sorts the entries; the name that stands there twice, if there is one.
    pub(crate) fn sort(&mut self) -> Result<(), String> {
        self.nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        match self.nodes.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(pair[0].display_name()),
            None => Ok(()),
        }
    }

    /// The blob: Go's JSON encoder ends a document with a line feed.
    pub(crate) fn to_blob(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = go_json::to_vec(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// The id that it is stored under: the same as restic's, when restic writes the same entries in UTC.
    pub fn id(&self) -> Result<Id, serde_json::Error> {
        Ok(Id::of(&self.to_blob()?))
    }

    /// The entry of this name.
    #[must_use]
    pub fn find(&self, name: &OsStr) -> Option<&Node> {
        // Not a binary search: trees of old versions of restic were not always sorted.
        self.nodes.iter().find(|node| node.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Metadata, NodeKind};

    #[test]
    fn the_empty_tree_has_the_id_that_restic_gives_it() {
        assert!(serde_json::from_slice::<Tree>(br#"{"nodes":null}"#).unwrap().nodes.is_empty());
        assert_eq!(Tree::default().id().unwrap().short(), "ac08ce34");
    }

    #[test]
    fn entries_are_sorted_by_bytes_and_a_second_of_the_same_name_is_an_error() {
        let node = |name: &str| Node::new(name, NodeKind::File, Metadata::synthetic(0o600));
        let mut tree = Tree { nodes: vec![node("b"), node("ä"), node("B"), node("a.b"), node("a")] };
        tree.sort().unwrap();
        let names: Vec<_> = tree.nodes.iter().map(Node::display_name).collect();
        assert_eq!(names, ["B", "a", "a.b", "b", "ä"]);
        tree.nodes.push(node("b"));
        assert_eq!(tree.sort().unwrap_err(), "b");
    }
}
