//! The steps around a product of integers: rounding its left side, and what becomes of what comes out.

use std::iter::repeat_with;

use multiversion::multiversion;
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext,
};

use ort::value::{PrimitiveTensorElementType, Shape, TensorElementType, ValueRefMut};

use super::{FLOATS, input, output, set_output, share, size, vector};

pub(in crate::onnx) const ROUND_ROWS: &str = "RoundRows";
pub(in crate::onnx) const SCALE_ROWS: &str = "ScaleRows";
/// Attributes of [`ScaleRows`]: 1: each number `x` becomes `x/2 (1 + erf(x/√2))`; what is added to a variance; 1: the rows
/// are rounded.
pub(in crate::onnx) const GELU: &str = "gelu";
pub(in crate::onnx) const EPSILON: &str = "epsilon";
pub(in crate::onnx) const ROUND: &str = "round";

/// The smallest step between two 8-bit values: a row of equal numbers has none.
const LEAST_STEP: f32 = 1e-10;
/// Numbers that one thread takes at a time: fewer are not worth waking another.
const SHARE: usize = 1 << 15;
/// Sums that are kept beside each other: two vector registers of AVX-512.
const LANES: usize = 32;

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
        set_rounded(context, 0)
    }
}

fn compute_rounding(context: &ComputeContext) -> ort::Result<()> {
    let numbers = input(context, 0)?;
    let (shape, numbers) = numbers.try_extract_tensor::<f32>()?;
    let width = width(shape)?;
    let mut bytes = output(context, 0, shape.clone())?;
    let mut least = output(context, 1, one_a_row(shape))?;
    let mut step = output(context, 2, one_a_row(shape))?;
    let rounded = Rounded {
        bytes: bytes.try_extract_tensor_mut()?.1,
        least: least.try_extract_tensor_mut()?.1,
        step: step.try_extract_tensor_mut()?.1,
    };
    let rows = (SHARE / width).max(1);
    let shares = numbers.chunks(rows * width).zip(rounded.chunks(rows, width));
    share(context, shares, |(numbers, rounded)| {
        round_rows(numbers, width, rounded);
    })
}

/// What becomes of the products of rounded rows and weights, row by row, in this order: they are scaled
/// (`products * scales * step + least * sums + bias`), bent, added to other rows and normalised, and rounded again.
///
/// Inputs: products of `[…, n]`, step and least of `[…, 1]`, scales and sums of `[n]`, a bias of `[n]` or none; then all or none of
/// rows to add of `[…, n]`, gain and offset of `[n]`. Outputs: the rows of `[…, n]`, and what [`RoundRows`] makes of them. Those that nobody
/// reads are not made.
pub(super) struct ScaleRows;

impl Operator for ScaleRows {
    type Kernel<'attributes> = Scaling;

    fn name(&self) -> &str {
        SCALE_ROWS
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let products = OperatorInput::required(TensorElementType::Int32);
        let optional = [const { OperatorInput::optional(TensorElementType::Float32) }; 4];
        [products].into_iter().chain([FLOATS; 4]).chain(optional)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [
            OperatorOutput::optional(TensorElementType::Float32),
            OperatorOutput::optional(TensorElementType::Uint8),
            OperatorOutput::optional(TensorElementType::Float32),
            OperatorOutput::optional(TensorElementType::Float32),
        ]
    }

    fn create_kernel<'attributes>(
        &self,
        context: &KernelContext<'attributes>,
    ) -> ort::Result<Self::Kernel<'attributes>> {
        Ok(Scaling {
            gelu: context.get::<i64>(GELU) == Some(1),
            epsilon: context.get::<f32>(EPSILON).unwrap_or_default(),
        })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        set_output(context, 0, TensorElementType::Float32, Shape::clone)?;
        match context.attr::<i64>(ROUND) {
            Ok(1) => set_rounded(context, 1),
            _ => Ok(()),
        }
    }
}

pub(super) struct Scaling {
    gelu: bool,
    epsilon: f32,
}

impl Kernel for Scaling {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let misfit = || ort::Error::new("the inputs of ScaleRows do not fit each other");
        let products = input(context, 0)?;
        let (shape, products) = products.try_extract_tensor::<i32>()?;
        let width = width(shape)?;
        let inputs: Vec<_> = (1..9).map(|index| context.input(index)).collect::<ort::Result<_>>()?;
        let optional = |index: usize, length: usize| match &inputs[index - 1] {
            None => Ok(None),
            Some(input) => match input.try_extract_tensor::<f32>()?.1 {
                numbers if numbers.len() == length => Ok(Some(numbers)),
                _ => Err(misfit()),
            },
        };
        let needed = |index, length| optional(index, length)?.ok_or_else(misfit);
        let (step, least) = (needed(1, products.len() / width)?, needed(2, products.len() / width)?);
        let added = optional(6, products.len())?;
        let none = vec![0.0; if inputs[4].is_none() { width } else { 0 }];
        let columns = Columns {
            scales: needed(3, width)?,
            sums: needed(4, width)?,
            bias: optional(5, width)?.unwrap_or(&none),
            gelu: self.gelu,
            norm: optional(7, width)?.zip(optional(8, width)?),
            epsilon: self.epsilon,
        };
        let (mut rows, mut bytes) = (context.output(0, shape.clone())?, context.output(1, shape.clone())?);
        let (mut low, mut steps) = (
            context.output(2, one_a_row(shape))?,
            context.output(3, one_a_row(shape))?,
        );
        let rounded = match (written(&mut bytes)?, written(&mut low)?, written(&mut steps)?) {
            (Some(bytes), Some(least), Some(step)) => Some(Rounded { bytes, least, step }),
            _ => None,
        };
        let together = (SHARE / width).max(1);
        let numbers = together * width;
        let results = each(written(&mut rows)?.map(|rows| rows.chunks_mut(numbers)))
            .zip(each(rounded.map(|rounded| rounded.chunks(together, width))));
        let shares = products
            .chunks(numbers)
            .zip(step.chunks(together).zip(least.chunks(together)))
            .zip(each(added.map(|added| added.chunks(numbers))).zip(results))
            .map(|((products, (step, least)), (added, (rows, rounded)))| Part {
                products,
                step,
                least,
                added,
                rows,
                rounded,
            });
        share(context, shares, |part| {
            scale_rows(&columns, part);
        })
    }
}

/// What an output that somebody reads is written to.
fn written<'a, T: PrimitiveTensorElementType>(
    output: &'a mut Option<ValueRefMut<'_>>,
) -> ort::Result<Option<&'a mut [T]>> {
    let tensor = output.as_mut().map(|output| output.try_extract_tensor_mut::<T>());
    Ok(tensor.transpose()?.map(|(_, numbers)| numbers))
}

/// The chunks of what there is, or nothing as often as asked.
fn each<I: Iterator>(mut chunks: Option<I>) -> impl Iterator<Item = Option<I::Item>> {
    repeat_with(move || chunks.as_mut().and_then(Iterator::next))
}

/// What is the same for all rows; lists with a number for each column.
struct Columns<'a> {
    scales: &'a [f32],
    sums: &'a [f32],
    bias: &'a [f32],
    gelu: bool,
    /// Gain and offset.
    norm: Option<(&'a [f32], &'a [f32])>,
    epsilon: f32,
}

/// Some rows of a product, and where they go.
struct Part<'a> {
    products: &'a [i32],
    step: &'a [f32],
    least: &'a [f32],
    added: Option<&'a [f32]>,
    rows: Option<&'a mut [f32]>,
    rounded: Option<Rounded<'a>>,
}

/// Rows of bytes, with the number that 0 stands for and the step between two bytes for each row.
struct Rounded<'a> {
    bytes: &'a mut [u8],
    least: &'a mut [f32],
    step: &'a mut [f32],
}

impl<'a> Rounded<'a> {
    fn chunks(self, rows: usize, width: usize) -> impl Iterator<Item = Self> {
        let parts = self.least.chunks_mut(rows).zip(self.step.chunks_mut(rows));
        let parts = self.bytes.chunks_mut(rows * width).zip(parts);
        parts.map(|(bytes, (least, step))| Self { bytes, least, step })
    }
}

/// Tells the library about bytes, least numbers and steps, from the output `first` on.
fn set_rounded(context: &mut ShapeInferenceContext, first: usize) -> ort::Result<()> {
    set_output(context, first, TensorElementType::Uint8, Shape::clone)?;
    set_output(context, first + 1, TensorElementType::Float32, one_a_row)?;
    set_output(context, first + 2, TensorElementType::Float32, one_a_row)
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

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn round_rows(numbers: &[f32], width: usize, rounded: Rounded<'_>) {
    const FMA: bool = vector::has_fma!();
    let rows = numbers.chunks_exact(width).zip(rounded.bytes.chunks_exact_mut(width));
    for ((numbers, bytes), (least, step)) in rows.zip(rounded.least.iter_mut().zip(rounded.step)) {
        (*least, *step) = round::<FMA>(numbers, bytes);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn scale_rows(columns: &Columns<'_>, part: Part<'_>) {
    const FMA: bool = vector::has_fma!();
    let width = columns.sums.len();
    let mut part = part;
    let mut nobody_reads = vec![0.0; if part.rows.is_none() { width } else { 0 }];
    for (at, products) in part.products.chunks_exact(width).enumerate() {
        let own = at * width..(at + 1) * width;
        let row = match &mut part.rows {
            Some(rows) => &mut rows[own.clone()],
            None => &mut nobody_reads,
        };
        scale::<FMA>(products, part.step[at], part.least[at], columns, row);
        if columns.gelu {
            row.iter_mut().for_each(|number| *number = vector::gelu::<FMA>(*number));
        }
        if let (Some(added), Some((gain, offset))) = (part.added, columns.norm) {
            normalise::<FMA>(row, &added[own.clone()], gain, offset, columns.epsilon);
        }
        if let Some(rounded) = &mut part.rounded {
            (rounded.least[at], rounded.step[at]) = round::<FMA>(row, &mut rounded.bytes[own]);
        }
    }
}

#[inline(always)]
fn scale<const FMA: bool>(products: &[i32], step: f32, least: f32, columns: &Columns<'_>, row: &mut [f32]) {
    let weights = columns.scales.iter().zip(columns.sums.iter().zip(columns.bias));
    for ((number, product), (scale, (sum, bias))) in row.iter_mut().zip(products).zip(weights) {
        *number = vector::fused::<FMA>(*product as f32 * scale, step, vector::fused::<FMA>(least, *sum, *bias));
    }
}

/// Makes the mean of a row and what is added to it 0 and its variance 1, then brings it to gain and offset.
#[inline(always)]
fn normalise<const FMA: bool>(row: &mut [f32], added: &[f32], gain: &[f32], offset: &[f32], epsilon: f32) {
    row.iter_mut().zip(added).for_each(|(number, added)| *number += added);
    let count = row.len() as f32;
    let mean = vector::fold::<LANES>(row, 0.0, |sum, number| sum + number, |a, b| a + b) / count;
    let square = |sum, number| vector::fused::<FMA>(number - mean, number - mean, sum);
    let variance = vector::fold::<LANES>(row, 0.0, square, |a, b| a + b) / count;
    let factor = 1.0 / (variance + epsilon).sqrt();
    for (number, (gain, offset)) in row.iter_mut().zip(gain.iter().zip(offset)) {
        *number = vector::fused::<FMA>((*number - mean) * factor, *gain, *offset);
    }
}

/// A row as bytes; answers its least number, and the step.
#[inline(always)]
fn round<const FMA: bool>(numbers: &[f32], bytes: &mut [u8]) -> (f32, f32) {
    let (min, max) = (
        |a: f32, b: f32| if b < a { b } else { a },
        |a: f32, b: f32| if b > a { b } else { a },
    );
    let least = vector::fold::<LANES>(numbers, f32::INFINITY, min, min);
    let most = vector::fold::<LANES>(numbers, f32::NEG_INFINITY, max, max);
    let step = ((most - least) / 255.0).max(LEAST_STEP);
    let factor = 1.0 / step;
    for (byte, number) in bytes.iter_mut().zip(numbers) {
        *byte = vector::nearest_byte::<FMA>(number - least, factor);
    }
    (least, step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Columns, Part, Rounded, round_rows, scale_rows};

    /// Three rows, and what they were made of.
    const ROWS: usize = 3;
    const STEP: [f32; ROWS] = [0.5, -2.0, 0.0];
    const LEAST: [f32; ROWS] = [1.0, 0.0, -3.0];

    /// Rows as floats and as bytes, with least numbers and steps.
    #[derive(Debug, PartialEq)]
    struct Done {
        rows: Vec<f32>,
        bytes: Vec<u8>,
        scales: [[f32; ROWS]; 2],
    }

    fn scaled(products: &[i32], added: Option<&[f32]>, columns: &Columns<'_>, is_read: bool) -> Done {
        let mut done = Done {
            rows: vec![0.0; if is_read { products.len() } else { 0 }],
            bytes: vec![0; products.len()],
            scales: [[0.0; ROWS]; 2],
        };
        let [least, step] = &mut done.scales;
        scale_rows(
            columns,
            Part {
                products,
                step: &STEP,
                least: &LEAST,
                added,
                rows: is_read.then_some(&mut done.rows),
                rounded: Some(Rounded {
                    bytes: &mut done.bytes,
                    least,
                    step,
                }),
            },
        );
        done
    }

    /// The same as it is defined.
    fn plain(products: &[i32], added: Option<&[f32]>, columns: &Columns<'_>) -> Vec<f64> {
        let width = columns.sums.len();
        let mut rows = Vec::new();
        for (row, products) in products.chunks(width).enumerate() {
            let scaled = products.iter().enumerate().map(|(at, product)| {
                let weight = f64::from(columns.scales[at]) * f64::from(STEP[row]);
                let number = f64::from(*product) * weight
                    + f64::from(LEAST[row]) * f64::from(columns.sums[at])
                    + f64::from(columns.bias[at]);
                let bent = if columns.gelu && number < 0.0 { 0.0 } else { number };
                bent + added.map_or(0.0, |added| f64::from(added[row * width + at]))
            });
            let mut scaled: Vec<f64> = scaled.collect();
            if let Some((gain, offset)) = columns.norm {
                let count = width as f64;
                let mean = scaled.iter().sum::<f64>() / count;
                let variance = scaled.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / count;
                let deviation = (variance + f64::from(columns.epsilon)).sqrt();
                for (at, number) in scaled.iter_mut().enumerate() {
                    *number = (*number - mean) / deviation * f64::from(gain[at]) + f64::from(offset[at]);
                }
            }
            rows.append(&mut scaled);
        }
        rows
    }

    proptest! {
        #[test]
        fn a_rounded_row_is_the_row_within_half_a_step(
            width in 1_usize..100,
            numbers in prop::collection::vec(-1e4_f32..1e4, 300),
        ) {
            let rows = numbers.len() / width;
            let numbers = &numbers[..rows * width];
            let (mut bytes, mut least, mut step) = (vec![0; rows * width], vec![0.0; rows], vec![0.0; rows]);
            round_rows(numbers, width, Rounded { bytes: &mut bytes, least: &mut least, step: &mut step });
            for (row, numbers) in numbers.chunks(width).enumerate() {
                prop_assert_eq!(least[row], numbers.iter().copied().fold(f32::INFINITY, f32::min));
                for (byte, number) in bytes[row * width..].iter().zip(numbers) {
                    let back = f32::from(*byte) * step[row] + least[row];
                    prop_assert!((back - number).abs() <= step[row] * 0.501 + 2e-3, "{number} became {back}");
                }
            }
        }

        #[test]
        fn rows_are_scaled_then_bent_or_normalised_then_rounded(
            width in 1_usize..70,
            (is_bent, is_normed) in prop_oneof![Just((false, false)), Just((true, false)), Just((false, true))],
            products in prop::collection::vec(-10_000_i32..10_000, ROWS * 70),
            numbers in prop::collection::vec(-1.0_f32..1.0, (ROWS + 5) * 70),
        ) {
            let products = &products[..ROWS * width];
            let mut lines = numbers.chunks_exact(width);
            let mut line = || lines.next().unwrap_or_default();
            let columns = Columns {
                scales: line(),
                sums: line(),
                bias: line(),
                gelu: is_bent,
                norm: is_normed.then_some((line(), line())),
                epsilon: 1e-3,
            };
            let added = is_normed.then_some(&numbers[5 * 70..][..ROWS * width]);
            let done = scaled(products, added, &columns, true);
            for (got, wanted) in done.rows.iter().zip(plain(products, added, &columns)) {
                // As bending is defined here it is wrong by 0.17 at worst.
                let off = if is_bent { 0.18 } else { 1e-3 } + 1e-5 * wanted.abs();
                prop_assert!((f64::from(*got) - wanted).abs() < off, "{got} is not {wanted}");
            }
            let (mut bytes, mut least, mut step) = (vec![0; ROWS * width], [0.0; ROWS], [0.0; ROWS]);
            round_rows(&done.rows, width, Rounded { bytes: &mut bytes, least: &mut least, step: &mut step });
            prop_assert_eq!((&bytes, [least, step]), (&done.bytes, done.scales));
            // Rows that nobody reads are the same.
            prop_assert_eq!(scaled(products, added, &columns, false), Done { rows: vec![], ..done });
        }
    }

    #[test]
    fn a_row_of_equal_numbers_comes_back_as_it_is() {
        let (mut bytes, mut least, mut step) = ([9; 40], [0.0], [0.0]);
        let rounded = Rounded {
            bytes: &mut bytes,
            least: &mut least,
            step: &mut step,
        };
        round_rows(&[1.25; 40], 40, rounded);
        assert_eq!((bytes, least), ([0; 40], [1.25]));
        assert!(step[0] > 0.0);
    }
}
