//! What is wrong with a file or directory, whatever its container.

use std::path::PathBuf;

/// What is wrong with a file or directory, whatever its container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// There is nothing at the path.
    #[error(
        "no such file or directory; pass a GGUF file, a directory that holds config.json \
         and safetensors files, or one that `flash-moe pack` made"
    )]
    NotFound,
    /// A link whose target is not there: not the absence of the file, but a model copied without what
    /// its links point to.
    #[error(
        "this is a link to {target}, and its target is not there; copy the model with its links followed \
         (`cp -rL`), or download it again"
    )]
    DanglingLink {
        /// Where the link points, as it is written in it.
        target: PathBuf,
    },
    /// A directory, or something else that is no file, under the name of a file.
    #[error("expected a file of this name, got {found}; move it away or get the model again")]
    NotAFile {
        /// What is there, in words.
        found: &'static str,
    },
    /// The operating system refused an operation.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried, e.g. "read the header".
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A directory without a model, or a file that is none.
    #[error(
        "not a model: found {found}; expected a GGUF file, config.json with \
         model.safetensors or model.safetensors.index.json, or a directory that `flash-moe pack` made"
    )]
    NotAModel {
        /// What lies there, in words.
        found: String,
    },
    /// A directory of GGUF files where one file was expected.
    #[error("this directory holds GGUF files; pass one of them, for instance {file}")]
    GgufDirectory {
        /// The first GGUF file in it.
        file: PathBuf,
    },
    /// A file of a model where its directory was expected.
    #[error("this is one file of a model; pass its directory {directory} instead")]
    FileOfModel {
        /// The directory to pass.
        directory: PathBuf,
    },
    /// A file that the model cannot do without is not there.
    #[error("missing; {advice}")]
    MissingFile {
        /// What to do.
        advice: &'static str,
    },
    /// A file larger than any honest one.
    #[error("{what} is too large: expected at most {limit}, got {got}; refused")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What the file says.
        got: u64,
    },
    /// A Git LFS pointer where the real file should be.
    #[error(
        "this is a Git LFS pointer, not the file itself; run `git lfs pull` in its \
         directory or download the file again"
    )]
    LfsPointer,
    /// A file that should be JSON and is not, or whose JSON has another form.
    #[error("not valid {expected}: {reason}; {advice}")]
    Json {
        /// What it should be, e.g. "JSON object".
        expected: &'static str,
        /// The parser's answer, with line and column.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
}
