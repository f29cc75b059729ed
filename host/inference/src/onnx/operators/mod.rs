//! Operators of our own, for graphs that were rewritten ([`super::rewrite`]).
//!
//! **Problem.** A layer of an encoder is some fifty of ONNX's operators, most of which only read a matrix, do little to each number
//! and write another one; for a short text each of them costs as much as a product. **Promise.** One pass for each of
//! three groups: [`rows::RoundRows`], [`rows::ScaleRows`] around a product of integers, [`attention::Attend`] for what lies between
//! the projections and the output of attention. What is computed for a text does not depend on the others in a batch. Work is
//! shared among the session's threads. **Cost.** Compiled for AVX2 and AVX-512 besides the program's CPU, and chosen at run time.

pub(super) mod attention;
pub(super) mod rows;
mod vector;

use std::sync::{Mutex, PoisonError};

use ort::operator::{ComputeContext, OperatorDomain, OperatorInput, ShapeInferenceContext};
use ort::value::{Shape, TensorElementType, ValueRef, ValueRefMut, ValueType};

/// What the operators' names belong to.
pub(super) const DOMAIN: &str = "formwork";

/// The operators for sessions; the library must have been loaded.
pub(super) fn domain() -> ort::Result<OperatorDomain> {
    let domain = OperatorDomain::new(DOMAIN)?;
    domain
        .add(rows::RoundRows)?
        .add(rows::ScaleRows)?
        .add(attention::Attend)
}

/// What most inputs are.
const FLOATS: OperatorInput = OperatorInput::required(TensorElementType::Float32);

fn input(context: &ComputeContext, index: usize) -> ort::Result<ValueRef<'_>> {
    context
        .input(index)?
        .ok_or_else(|| ort::Error::new("an input is missing"))
}

fn output(context: &ComputeContext, index: usize, shape: Shape) -> ort::Result<ValueRefMut<'_>> {
    let output = context.output(index, shape)?;
    output.ok_or_else(|| ort::Error::new("an output is missing"))
}

/// Tells the library that an output is a tensor of this kind, with a shape made from that of the first input.
fn set_output(
    context: &mut ShapeInferenceContext,
    index: usize,
    ty: TensorElementType,
    shape_from: fn(&Shape) -> Shape,
) -> ort::Result<()> {
    match context.inputs().into_iter().next() {
        // A shape that is not known is given as that of a single number, which has no rows.
        Some(ValueType::Tensor {
            shape,
            dimension_symbols,
            ..
        }) if !shape.is_empty() => context.set_output(
            index,
            &ValueType::Tensor {
                ty,
                shape: shape_from(&shape),
                dimension_symbols,
            },
        ),
        _ => Ok(()),
    }
}

/// A size of a tensor; what a library gives is never negative.
fn size(dimension: Option<&i64>) -> usize {
    dimension.and_then(|size| usize::try_from(*size).ok()).unwrap_or(0)
}

/// Has the session's threads take the shares, one after another.
fn share<T: Send>(
    context: &ComputeContext,
    shares: impl Iterator<Item = T>,
    work: impl Fn(T) + Send + Sync,
) -> ort::Result<()> {
    let mut shares: Vec<T> = shares.collect();
    if shares.len() <= 1 {
        shares.into_iter().for_each(work);
        return Ok(());
    }
    let count = shares.len();
    let shares = Mutex::new(&mut shares);
    context.par_for(count, count, |_| {
        let next = shares.lock().unwrap_or_else(PoisonError::into_inner).pop();
        next.into_iter().for_each(&work);
    })
}
