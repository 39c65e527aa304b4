//! Dense weights: from the checkpoint's extents into resident matrices and vectors.

use std::sync::Arc;

use checkpoint::{Checkpoint, TensorInfo};
use ops::{Backend, HostMatrix, SharedBytes};
use storage::{AlignedBuf, FileId, Storage};

use crate::ModelError;

/// Reads dense tensors of one checkpoint, verifies them where the container has checksums, and hands them to a back-end.
///
/// Callers have checked names and shapes before ([`crate::layout::layout`]); a name that is absent all the same is an
/// error of the same kind.
pub struct DenseLoader<'a> {
    checkpoint: &'a Checkpoint,
    storage: &'a dyn Storage,
    files: &'a [FileId],
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> DenseLoader<'a> {
    /// `files[i]` is the opened `checkpoint.files()[i]`; `progress` is told the bytes of each tensor as it is loaded.
    pub fn new(
        checkpoint: &'a Checkpoint,
        storage: &'a dyn Storage,
        files: &'a [FileId],
        progress: &'a mut dyn FnMut(u64),
    ) -> Self {
        Self { checkpoint, storage, files, progress }
    }

    fn info(&self, name: &str) -> Result<&'a TensorInfo, ModelError> {
        self.checkpoint.tensor(name).ok_or_else(|| ModelError::MissingTensors {
            path: self.checkpoint.root().to_path_buf(),
            count: 1,
            first: name.to_string(),
        })
    }

    /// The tensor's bytes and where they start in the buffer they were read into.
    fn bytes(&mut self, info: &TensorInfo) -> Result<(AlignedBuf, usize), ModelError> {
        let extent = &info.extent;
        let file = self.files[extent.file as usize];
        let len = extent.bytes as usize;
        let (buf, start) = self.storage.read_range(file, extent.offset, len)?;
        if let Some(expected) = info.checksum {
            let got = checkpoint::checksum(&buf[start..start + len]);
            if got != expected {
                return Err(ModelError::Checksum {
                    path: self.storage.path(file),
                    name: info.name.clone(),
                    offset: extent.offset,
                    expected,
                    got,
                });
            }
        }
        (self.progress)(extent.bytes);
        Ok((buf, start))
    }

    fn tensor_error(&self, name: &str, source: tensor::TensorError) -> ModelError {
        ModelError::Tensor { path: self.checkpoint.root().to_path_buf(), name: name.to_string(), source }
    }

    /// A matrix `[rows, cols]`, kept in its stored format.
    ///
    /// # Errors
    /// Read errors and checksum mismatches, naming file, tensor and offset.
    pub fn matrix<B: Backend>(&mut self, backend: &mut B, name: &str) -> Result<B::Matrix, ModelError> {
        let info = self.info(name)?;
        let (buf, offset) = self.bytes(info)?;
        let (rows, cols) = (info.shape[0], info.shape[1..].iter().product());
        let bytes: SharedBytes = Arc::new(buf);
        Ok(backend.matrix(HostMatrix { format: info.format, rows, cols, bytes, offset })?)
    }

    /// Any small tensor, decoded to f32 in storage order.
    ///
    /// # Errors
    /// As [`DenseLoader::matrix`].
    pub fn values(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let info = self.info(name)?;
        let (buf, start) = self.bytes(info)?;
        let mut values = vec![0.0; info.shape.iter().product()];
        let bytes = &buf[start..start + info.extent.bytes as usize];
        info.format.decode_row(bytes, &mut values).map_err(|source| self.tensor_error(name, source))?;
        Ok(values)
    }

    /// A small tensor as a buffer of the back-end, after `map` was applied to each value.
    ///
    /// # Errors
    /// As [`DenseLoader::matrix`].
    pub fn vector<B: Backend>(
        &mut self,
        backend: &mut B,
        name: &str,
        map: impl Fn(f32) -> f32,
    ) -> Result<B::Buffer, ModelError> {
        let values: Vec<f32> = self.values(name)?.into_iter().map(map).collect();
        let mut buffer = backend.buffer(values.len())?;
        backend.write(&mut buffer, 0, &values);
        Ok(buffer)
    }

    /// Norm weights as they multiply; `offset` is added to each stored one ([`crate::spec::NormSpec::offset`]).
    ///
    /// # Errors
    /// As [`DenseLoader::matrix`].
    pub fn norm<B: Backend>(
        &mut self,
        backend: &mut B,
        name: &str,
        offset: f32,
    ) -> Result<B::Buffer, ModelError> {
        self.vector(backend, name, |weight| offset + weight)
    }
}
