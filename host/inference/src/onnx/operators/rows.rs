//! The steps around a product of integers: rounding its left side, and scaling what comes out.

use multiversion::multiversion;
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext,
};
use ort::value::{Shape, TensorElementType, ValueType};

use super::{FLOATS, input, output, shaped_like_the_first, share, size, vector};

pub(in crate::onnx) const ROUND_ROWS: &str = "RoundRows";
pub(in crate::onnx) const SCALE_ROWS: &str = "ScaleRows";
/// An attribute of [`ScaleRows`], 1: each number `x` of the result becomes `x/2 (1 + erf(x/√2))`.
pub(in crate::onnx) const GELU: &str = "gelu";

/// The smallest step between two 8-bit values: a row of equal numbers has none.
const LEAST_STEP: f32 = 1e-10;
/// Numbers that one thread takes at a time: fewer are not worth waking another.
const SHARE: usize = 1 << 15;

/// `x` of `[…, n]` floats → bytes of `[…, n]`, least of `[…, 1]`, step of `[…, 1]`.
pub(super) struct RoundRows;

impl Operator for RoundRows {
    type Kernel<'attributes> = fn(&ComputeContext) -> ort::Result<()>;

    fn name(&self) -> &str {
        ROUND_ROWS
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [FLOATS]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [
            OperatorOutput::required(TensorElementType::Uint8),
            OperatorOutput::required(TensorElementType::Float32),
            OperatorOutput::required(TensorElementType::Float32),
        ]
    }

    fn create_kernel<'attributes>(
        &self,
        _context: &KernelContext<'attributes>,
    ) -> ort::Result<Self::Kernel<'attributes>> {
        Ok(compute_rounding)
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let inputs = context.inputs();
        let Some(ValueType::Tensor {
            shape,
            dimension_symbols,
            ..
        }) = inputs.first()
        else {
            return Ok(());
        };
        let tensor = |ty, shape| ValueType::Tensor {
            ty,
            shape,
            dimension_symbols: dimension_symbols.clone(),
        };
        if shape.is_empty() {
            return Ok(());
        }
        context.set_output(0, &tensor(TensorElementType::Uint8, shape.clone()))?;
        context.set_output(1, &tensor(TensorElementType::Float32, one_a_row(shape)))?;
        context.set_output(2, &tensor(TensorElementType::Float32, one_a_row(shape)))
    }
}

fn compute_rounding(context: &ComputeContext) -> ort::Result<()> {
    let numbers = input(context, 0)?;
    let (shape, numbers) = numbers.try_extract_tensor::<f32>()?;
    let width = width(shape)?;
    let mut bytes = output(context, 0, shape.clone())?;
    let mut least = output(context, 1, one_a_row(shape))?;
    let mut step = output(context, 2, one_a_row(shape))?;
    let bytes = bytes.try_extract_tensor_mut::<u8>()?.1;
    let least = least.try_extract_tensor_mut::<f32>()?.1;
    let step = step.try_extract_tensor_mut::<f32>()?.1;
    let rows = (SHARE / width).max(1);
    let shares = numbers
        .chunks(rows * width)
        .zip(bytes.chunks_mut(rows * width))
        .zip(least.chunks_mut(rows).zip(step.chunks_mut(rows)));
    share(context, shares, |((numbers, bytes), (least, step))| {
        round_rows(numbers, width, bytes, least, step);
    })
}

/// products of `[…, n]`, step and least of `[…, 1]`, sums of `[n]`, bias of `[n]` or none → products * step + least * sums + bias.
pub(super) struct ScaleRows;

impl Operator for ScaleRows {
    type Kernel<'attributes> = Scaling;

    fn name(&self) -> &str {
        SCALE_ROWS
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let bias = OperatorInput::optional(TensorElementType::Float32);
        [FLOATS, FLOATS, FLOATS, FLOATS, bias]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attributes>(
        &self,
        context: &KernelContext<'attributes>,
    ) -> ort::Result<Self::Kernel<'attributes>> {
        let gelu = context.get::<i64>(GELU) == Some(1);
        Ok(Scaling { gelu })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        shaped_like_the_first(context)
    }
}

pub(super) struct Scaling {
    gelu: bool,
}

impl Kernel for Scaling {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let inputs = [
            input(context, 0)?,
            input(context, 1)?,
            input(context, 2)?,
            input(context, 3)?,
        ];
        let (shape, products) = inputs[0].try_extract_tensor::<f32>()?;
        let step = inputs[1].try_extract_tensor::<f32>()?.1;
        let least = inputs[2].try_extract_tensor::<f32>()?.1;
        let sums = inputs[3].try_extract_tensor::<f32>()?.1;
        let bias = context.input(4)?;
        let bias = bias.as_ref().map(|bias| bias.try_extract_tensor::<f32>()).transpose()?;
        let none = vec![0.0; if bias.is_none() { sums.len() } else { 0 }];
        let bias = bias.map_or(none.as_slice(), |(_, bias)| bias);
        let width = width(shape)?;
        if sums.len() != width
            || bias.len() != width
            || step.len() != products.len() / width
            || least.len() != step.len()
        {
            return Err(ort::Error::new("the inputs of ScaleRows do not fit each other"));
        }
        let mut scaled = output(context, 0, shape.clone())?;
        let scaled = scaled.try_extract_tensor_mut::<f32>()?.1;
        let rows = (SHARE / width).max(1);
        let shares = products
            .chunks(rows * width)
            .zip(scaled.chunks_mut(rows * width))
            .zip(step.chunks(rows).zip(least.chunks(rows)));
        share(context, shares, |((products, scaled), (step, least))| {
            scale_rows(products, step, least, sums, bias, scaled);
            if self.gelu {
                bend(scaled);
            }
        })
    }
}

/// The shape with one number in the place of each row.
fn one_a_row(shape: &Shape) -> Shape {
    let mut one = shape.clone();
    if let Some(last) = one.last_mut() {
        *last = 1;
    }
    one
}

/// Numbers in a row.
fn width(shape: &[i64]) -> ort::Result<usize> {
    match size(shape.last()) {
        0 => Err(ort::Error::new("rows without numbers")),
        width => Ok(width),
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2+fma"))]
fn round_rows(numbers: &[f32], width: usize, bytes: &mut [u8], least: &mut [f32], step: &mut [f32]) {
    let rows = numbers.chunks_exact(width).zip(bytes.chunks_exact_mut(width));
    for ((numbers, bytes), (row_least, row_step)) in rows.zip(least.iter_mut().zip(step)) {
        let (lanes, rest) = numbers.as_chunks::<32>();
        let (mut low, mut high) = ([f32::INFINITY; 32], [f32::NEG_INFINITY; 32]);
        for lane in lanes {
            for at in 0..32 {
                low[at] = if lane[at] < low[at] { lane[at] } else { low[at] };
                high[at] = if lane[at] > high[at] { lane[at] } else { high[at] };
            }
        }
        let low = low.iter().chain(rest).copied().fold(f32::INFINITY, f32::min);
        let high = high.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
        let step = ((high - low) / 255.0).max(LEAST_STEP);
        let factor = 1.0 / step;
        for (byte, number) in bytes.iter_mut().zip(numbers) {
            *byte = vector::nearest_byte((number - low) * factor);
        }
        *row_least = low;
        *row_step = step;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2+fma"))]
fn scale_rows(products: &[f32], step: &[f32], least: &[f32], sums: &[f32], bias: &[f32], scaled: &mut [f32]) {
    let width = sums.len();
    let rows = products.chunks_exact(width).zip(scaled.chunks_exact_mut(width));
    for ((products, scaled), (step, least)) in rows.zip(step.iter().zip(least)) {
        let parts = products.iter().zip(sums.iter().zip(bias));
        for (scaled, (product, (sum, bias))) in scaled.iter_mut().zip(parts) {
            *scaled = product * step + (least * sum + bias);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2+fma"))]
fn bend(numbers: &mut [f32]) {
    for number in numbers {
        *number = vector::gelu(*number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{round_rows, scale_rows};

    proptest! {
        #[test]
        fn a_rounded_row_is_the_row_within_half_a_step(
            width in 1_usize..100,
            numbers in prop::collection::vec(-1e4_f32..1e4, 300),
        ) {
            let rows = numbers.len() / width;
            let numbers = &numbers[..rows * width];
            let (mut bytes, mut least, mut step) = (vec![0; rows * width], vec![0.0; rows], vec![0.0; rows]);
            round_rows(numbers, width, &mut bytes, &mut least, &mut step);
            for (row, numbers) in numbers.chunks(width).enumerate() {
                prop_assert_eq!(least[row], numbers.iter().copied().fold(f32::INFINITY, f32::min));
                for (byte, number) in bytes[row * width..].iter().zip(numbers) {
                    let back = f32::from(*byte) * step[row] + least[row];
                    prop_assert!((back - number).abs() <= step[row] * 0.501 + 2e-3, "{number} became {back}");
                }
            }
        }

        #[test]
        fn a_scaled_row_is_its_parts_summed(numbers in prop::collection::vec(-1e3_f32..1e3, 5 * 37)) {
            let (products, rest) = numbers.split_at(3 * 37);
            let (sums, bias) = rest.split_at(37);
            let (step, least) = ([0.5, -2.0, 0.0], [1.0, 0.0, -3.0]);
            let mut scaled = vec![0.0; products.len()];
            scale_rows(products, &step, &least, sums, bias, &mut scaled);
            for (at, scaled) in scaled.iter().enumerate() {
                let (row, column) = (at / 37, at % 37);
                prop_assert_eq!(*scaled, products[at] * step[row] + (least[row] * sums[column] + bias[column]));
            }
        }
    }

    #[test]
    fn a_row_of_equal_numbers_comes_back_as_it_is() {
        let (mut bytes, mut least, mut step) = ([9; 40], [0.0], [0.0]);
        round_rows(&[1.25; 40], 40, &mut bytes, &mut least, &mut step);
        assert_eq!((bytes, least), ([0; 40], [1.25]));
        assert!(step[0] > 0.0);
    }
}
