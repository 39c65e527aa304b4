//! `manifest.json` of a packed container: its fields, its bytes and its checks.
//!
//! The file is one JSON object whose first key is the checksum of everything behind it, at a fixed
//! offset:
//!
//! ```text
//! {"checksum":"0123456789abcdef","format":"flash-moe-packed","version":1,"container":{…}}\n
//! ^ offset 0: fixed text        ^ offset 29: covered by the checksum, to the end of the file
//! ```
//!
//! That much is fixed for all versions, so a damaged manifest and a newer one can be told apart.
//! Within a version unknown fields are refused: whoever adds one raises the version.

use std::path::Path;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::checksum::CHECKSUM_DIGITS;
pub use crate::checksum::Checksum;
use crate::error::{CheckpointError, FileError, PackedError, shown};

/// File name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// File name of the dense tensors.
pub const DENSE: &str = "dense.bin";
/// File name of the journal of an unfinished container.
pub const JOURNAL: &str = "pack.journal";
/// File name of the model's configuration.
pub const CONFIG: &str = "config.json";
/// Version of the format that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Expert records begin at multiples of this and are a multiple of it long.
pub const RECORD_ALIGN_BYTES: u64 = 4096;
/// Dense tensors begin at multiples of this.
pub const DENSE_ALIGN_BYTES: u64 = 4096;
/// The matrices inside a record begin at multiples of this.
pub const PART_ALIGN_BYTES: u64 = 64;
/// Longest manifest that is read.
pub const MANIFEST_BYTES_MAX: u64 = 128 << 20;
/// Most layers of a model.
pub const LAYERS_MAX: u32 = 4096;
/// Largest of the small files in a container.
pub const AUX_BYTES_MAX: u64 = 256 << 20;

/// File name of the expert records of one layer.
pub fn expert_file_name(layer: u32) -> String {
    format!("experts-{layer:04}.bin")
}

/// What a container holds: the content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Program and version that wrote it.
    pub created_by: String,
    /// The model and the formats, for people.
    pub description: String,
    /// Identity of what was packed and how; equal plans give equal containers.
    pub plan: Checksum,
    /// Every file of the container except the manifest.
    pub files: Vec<FileEntry>,
    /// Tensors in `dense.bin`, by rising offset.
    pub dense: Vec<DenseEntry>,
    /// Layers that have experts, by rising number.
    pub layers: Vec<LayerEntry>,
}

/// One file of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name in the directory.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Checksum of the whole file: for the small files. `dense.bin` and the expert files have
    /// theirs per tensor and per record.
    pub checksum: Option<Checksum>,
}

/// One dense tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseEntry {
    /// Hugging Face name.
    pub name: String,
    /// Format of its rows (the last dimension).
    pub format: String,
    /// Logical shape in weights.
    pub shape: Vec<u64>,
    /// First byte in `dense.bin`.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Checksum of the bytes.
    pub checksum: Checksum,
}

/// The expert records of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerEntry {
    /// Number of the layer.
    pub layer: u32,
    /// File that has the records. Several layers may name the same one.
    pub file: String,
    /// Number of the record of expert 0 in that file.
    pub first_record: u64,
    /// Length of each record.
    pub record_bytes: u64,
    /// Gate, up, down.
    pub parts: [PartEntry; 3],
    /// Checksum of each expert's whole record, padding included; as many as there are experts.
    pub checksums: Vec<Checksum>,
}

/// One matrix inside the records of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartEntry {
    /// Format of the rows.
    pub format: String,
    /// Number of rows.
    pub rows: u64,
    /// Weights per row.
    pub cols: u64,
    /// First byte, from the start of the record.
    pub offset: u64,
}

impl Manifest {
    /// The bytes of `manifest.json`, its checksum included.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let envelope = Envelope { format: FORMAT, version: VERSION, container: self };
        let json = serde_json::to_string(&envelope)?;
        // `json` begins with `{`; the checksum becomes the first key, at a fixed offset.
        let rest = format!("\",{}\n", json.trim_start_matches('{'));
        let checksum = Checksum(xxh3_64(rest.as_bytes()));
        Ok(format!("{MANIFEST_START}{checksum}{rest}").into_bytes())
    }

    /// Parses the bytes of a manifest and checks its form, not yet its numbers; `path` is for messages.
    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Manifest, CheckpointError> {
        check_envelope(path, bytes)?;
        let invalid = |e: serde_json::Error| {
            CheckpointError::new(
                path,
                FileError::Json {
                    expected: "manifest",
                    reason: shown(&e.to_string()),
                    advice: "pack the model again",
                },
            )
        };
        let head: Head = serde_json::from_slice(bytes).map_err(invalid)?;
        let field = |item: &str, expected: &str, got: &str| {
            CheckpointError::new(
                path,
                PackedError::ManifestInvalid {
                    item: item.to_owned(),
                    expected: expected.to_owned(),
                    got: shown(got),
                },
            )
        };
        if head.format != FORMAT {
            return Err(field("format", FORMAT, &head.format));
        }
        if head.version > u64::from(VERSION) {
            return Err(CheckpointError::new(
                path,
                PackedError::NewerVersion { expected: VERSION, got: head.version },
            ));
        }
        if head.version != u64::from(VERSION) {
            return Err(field("version", &VERSION.to_string(), &head.version.to_string()));
        }
        let file: ManifestFile = serde_json::from_slice(bytes).map_err(invalid)?;
        Ok(file.container)
    }
}

/// The fixed text, the checksum's form, and the checksum over the rest of the file.
fn check_envelope(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let foreign = || {
        CheckpointError::new(
            path,
            PackedError::ManifestForeign {
                expected: format!("`{MANIFEST_START}` and 16 hexadecimal digits"),
                got: format!(
                    "`{}`",
                    shown(&String::from_utf8_lossy(
                        &bytes[..bytes.len().min(MANIFEST_START.len() + CHECKSUM_DIGITS)]
                    ))
                ),
            },
        )
    };
    let rest = bytes.strip_prefix(MANIFEST_START.as_bytes()).ok_or_else(foreign)?;
    let (digits, covered) = rest.split_at_checked(CHECKSUM_DIGITS).ok_or_else(foreign)?;
    let expected = str::from_utf8(digits).ok().and_then(Checksum::parse).ok_or_else(foreign)?;
    let got = Checksum(xxh3_64(covered));
    if got == expected {
        return Ok(());
    }
    Err(CheckpointError::new(
        path,
        PackedError::ManifestChecksum {
            offset: COVERED_OFFSET,
            expected: expected.to_string(),
            got: got.to_string(),
        },
    ))
}

#[derive(Serialize)]
struct Envelope<'a> {
    format: &'static str,
    version: u32,
    container: &'a Manifest,
}

/// What every version has; the rest may be unknown.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    #[serde(rename = "checksum")]
    _checksum: IgnoredAny,
    #[serde(rename = "format")]
    _format: IgnoredAny,
    #[serde(rename = "version")]
    _version: IgnoredAny,
    container: Manifest,
}

/// Value of `format`.
const FORMAT: &str = "flash-moe-packed";
/// How every manifest begins.
pub(crate) const MANIFEST_START: &str = "{\"checksum\":\"";
/// First byte that the checksum covers.
const COVERED_OFFSET: u64 = 29;
