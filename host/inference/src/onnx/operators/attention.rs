//! Attention: what lies between the projections of an encoder's layer and its output.

use multiversion::multiversion;
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext,
};
use ort::value::{Shape, TensorElementType};

use super::{FLOATS, input, output, set_output, share, size, vector};

pub(in crate::onnx) const ATTEND: &str = "Attend";
/// Attributes: numbers of a head; what products of queries and keys are multiplied with; 1: a token that may look at none
/// sees zeros, not NaN.
pub(in crate::onnx) const HEAD_SIZE: &str = "head_size";
pub(in crate::onnx) const FACTOR: &str = "factor";
pub(in crate::onnx) const GUARDED: &str = "guarded";

/// Numbers in a vector register of AVX-512.
const LANES: usize = 16;
/// Queries that are worked on together: each key and value that was read serves all of them.
const TOGETHER: usize = 4;
/// Queries that one thread takes at a time: their keys and values are laid out anew for each such share.
const SHARE: usize = 64;

/// queries of `[b, s, h * head_size]`, keys and values of `[b, t, h * head_size]`, a mask that is added to the scores, of
/// `[b, h, s, t]` or 1 in the place of some of them → `[b, s, h * head_size]`.
pub(super) struct Attend;

impl Operator for Attend {
    type Kernel<'attributes> = Attention;

    fn name(&self) -> &str {
        ATTEND
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [FLOATS; 4]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attributes>(
        &self,
        context: &KernelContext<'attributes>,
    ) -> ort::Result<Self::Kernel<'attributes>> {
        let head_size = context
            .get::<i64>(HEAD_SIZE)
            .and_then(|size| usize::try_from(size).ok());
        Ok(Attention {
            head_size: head_size
                .filter(|size| *size > 0)
                .ok_or_else(|| ort::Error::new("no head_size"))?,
            factor: context.get::<f32>(FACTOR).unwrap_or(1.0),
            of_none: if context.get::<i64>(GUARDED) == Some(1) {
                0.0
            } else {
                f32::NAN
            },
        })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        set_output(context, 0, TensorElementType::Float32, Shape::clone)
    }
}

pub(super) struct Attention {
    head_size: usize,
    factor: f32,
    /// What a token sees that may look at none.
    of_none: f32,
}

impl Kernel for Attention {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let inputs = [
            input(context, 0)?,
            input(context, 1)?,
            input(context, 2)?,
            input(context, 3)?,
        ];
        let (shape, queries) = inputs[0].try_extract_tensor::<f32>()?;
        let (keys_shape, keys) = inputs[1].try_extract_tensor::<f32>()?;
        let (values_shape, values) = inputs[2].try_extract_tensor::<f32>()?;
        let (mask_shape, mask) = inputs[3].try_extract_tensor::<f32>()?;
        let misfit = || ort::Error::new("the inputs of Attend do not fit each other");
        let &[texts, rows, width] = [0, 1, 2].map(|at| size(shape.get(at))).as_slice() else {
            return Err(misfit());
        };
        let tokens = size(keys_shape.get(1));
        let fits = shape.len() == 3
            && **keys_shape == [shape[0], keys_shape.get(1).copied().unwrap_or(0), shape[2]]
            && **keys_shape == **values_shape
            && width % self.head_size == 0;
        if !fits {
            return Err(misfit());
        }
        let heads = width / self.head_size;
        let mask = Mask::new(mask, mask_shape, [texts, heads, rows, tokens]).ok_or_else(misfit)?;
        let mut output = output(context, 0, shape.clone())?;
        let output = output.try_extract_tensor_mut::<f32>()?.1;
        if output.is_empty() {
            return Ok(());
        }
        if tokens == 0 {
            output.fill(self.of_none);
            return Ok(());
        }
        let texts = queries.chunks(rows * width).zip(output.chunks_mut(rows * width));
        let texts = texts.zip(keys.chunks(tokens * width).zip(values.chunks(tokens * width)));
        let shares = texts
            .enumerate()
            .flat_map(|(text, ((queries, output), (keys, values)))| {
                let parts = queries.chunks(SHARE * width).zip(output.chunks_mut(SHARE * width));
                parts.enumerate().map(move |(part, (queries, output))| {
                    let first_row = part * SHARE;
                    (
                        Part {
                            text,
                            first_row,
                            queries,
                            keys,
                            values,
                        },
                        output,
                    )
                })
            });
        share(context, shares, |(part, output)| {
            self.attend(&part, &mask, heads, output);
        })
    }
}

/// Queries of a text, and all its keys and values.
struct Part<'a> {
    text: usize,
    first_row: usize,
    queries: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
}

impl Attention {
    fn attend(&self, part: &Part<'_>, mask: &Mask<'_>, heads: usize, output: &mut [f32]) {
        let (size, width) = (self.head_size, heads * self.head_size);
        let (rows, tokens) = (part.queries.len() / width, part.keys.len() / width);
        let (token_lanes, size_lanes) = (tokens.div_ceil(LANES), size.div_ceil(LANES));
        let zero = [0.0; LANES];
        let mut keys = vec![zero; size * token_lanes];
        let mut values = vec![zero; tokens * size_lanes];
        let mut queries = vec![0.0; TOGETHER * size];
        let mut scores = vec![zero; TOGETHER * token_lanes];
        let mut seen = vec![zero; TOGETHER * size_lanes];
        // Most masks are the same for all heads and queries of a text.
        let (mut hidden, mut shown) = (vec![zero; token_lanes], &[][..]);
        for head in 0..heads {
            let of_head = |token: usize| token * width + head * size..token * width + (head + 1) * size;
            for token in 0..tokens {
                let key = &part.keys[of_head(token)];
                for (line, number) in keys.chunks_exact_mut(token_lanes).zip(key) {
                    line[token / LANES][token % LANES] = *number;
                }
                let value = &part.values[of_head(token)];
                let line = values[token * size_lanes..][..size_lanes].as_flattened_mut();
                line[..size].copy_from_slice(value);
            }
            for first in (0..rows).step_by(TOGETHER) {
                let together = TOGETHER.min(rows - first);
                for at in 0..TOGETHER {
                    // A group that is not full repeats its last one.
                    let query = &part.queries[of_head(first + at.min(together - 1))];
                    for (scaled, number) in queries[at * size..].iter_mut().zip(query) {
                        *scaled = number * self.factor;
                    }
                }
                multiply(&queries, size, &keys, token_lanes, &mut scores);
                for at in 0..together {
                    let scores = &mut scores[at * token_lanes..][..token_lanes];
                    let mask = mask.of(part.text, head, part.first_row + first + at);
                    if !std::ptr::eq(mask, shown) {
                        shown = mask;
                        fill(&mut hidden, mask, tokens);
                    }
                    soften(scores, &hidden, self.of_none);
                }
                let stride = token_lanes * LANES;
                multiply(scores.as_flattened(), stride, &values, size_lanes, &mut seen);
                for at in 0..together {
                    let seen = seen[at * size_lanes..][..size_lanes].as_flattened();
                    output[of_head(first + at)].copy_from_slice(&seen[..size]);
                }
            }
        }
    }
}

/// What is added to scores.
struct Mask<'a> {
    numbers: &'a [f32],
    /// How far the next text, head and query are.
    strides: [usize; 3],
    /// One number for all keys, or one for each.
    tokens: usize,
}

impl<'a> Mask<'a> {
    /// A mask of that shape for scores of these sizes.
    fn new(numbers: &'a [f32], shape: &[i64], sizes: [usize; 4]) -> Option<Self> {
        let mut strides = [0; 4];
        let mut stride = 1;
        for at in (0..4).rev() {
            match size(shape.get(at)) {
                own if own == sizes[at] => {
                    strides[at] = stride;
                    stride *= own;
                }
                1 => {}
                _ => return None,
            }
        }
        let [text, head, row, token] = strides;
        (shape.len() == 4 && numbers.len() == stride).then_some(Self {
            numbers,
            strides: [text, head, row],
            tokens: if token == 0 { 1 } else { sizes[3] },
        })
    }

    fn of(&self, text: usize, head: usize, row: usize) -> &'a [f32] {
        let [of_text, of_head, of_row] = self.strides;
        &self.numbers[text * of_text + head * of_head + row * of_row..][..self.tokens]
    }
}

/// What is added to the scores of so many keys, and nothing but no share to what stands behind them.
fn fill(lanes: &mut [[f32; LANES]], mask: &[f32], tokens: usize) {
    let (keys, behind) = lanes.as_flattened_mut().split_at_mut(tokens);
    match mask {
        [one] => keys.fill(*one),
        mask => keys.copy_from_slice(mask),
    }
    behind.fill(f32::NEG_INFINITY);
}

/// The product of a few rows, `stride` apart, and a matrix of so many vectors a row.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn multiply(rows: &[f32], stride: usize, matrix: &[[f32; LANES]], lanes: usize, product: &mut [[f32; LANES]]) {
    const FMA: bool = vector::has_fma!();
    for lane in 0..lanes {
        let mut sums = [[0.0; LANES]; TOGETHER];
        for (at, line) in matrix.chunks_exact(lanes).enumerate() {
            let line = &line[lane];
            for (row, sum) in sums.iter_mut().enumerate() {
                let factor = rows[row * stride + at];
                for (sum, number) in sum.iter_mut().zip(line) {
                    *sum = vector::fused::<FMA>(factor, *number, *sum);
                }
            }
        }
        for (row, sum) in sums.iter().enumerate() {
            product[row * lanes + lane] = *sum;
        }
    }
}

/// Scores under their mask become shares that add up to one; all of them `of_none` where there is nothing to look at.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn soften(scores: &mut [[f32; LANES]], mask: &[[f32; LANES]], of_none: f32) {
    const FMA: bool = vector::has_fma!();
    let mut highest = [f32::NEG_INFINITY; LANES];
    for (lane, mask) in scores.iter_mut().zip(mask) {
        for ((highest, score), mask) in highest.iter_mut().zip(lane).zip(mask) {
            *score += mask;
            *highest = if *score > *highest { *score } else { *highest };
        }
    }
    let highest = vector::reduce(highest, |a, b| if a > b { a } else { b });
    let mut sums = [0.0; LANES];
    for lane in scores.iter_mut() {
        for (sum, score) in sums.iter_mut().zip(lane) {
            // A key that must not be looked at has no share at all.
            *score = if *score == f32::NEG_INFINITY {
                0.0
            } else {
                vector::exp::<FMA>(*score - highest)
            };
            *sum += *score;
        }
    }
    let sum = vector::reduce(sums, |a, b| a + b);
    if !(sum > 0.0 && sum.is_finite()) {
        scores.as_flattened_mut().fill(of_none);
        return;
    }
    let factor = 1.0 / sum;
    for score in scores.as_flattened_mut() {
        *score *= factor;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use proptest::prelude::*;

    use super::{Attention, Mask, Part};

    /// Attention of the second of two texts, as it is defined.
    fn plain(
        queries: &[f32],
        keys: &[f32],
        values: &[f32],
        mask: &[f32],
        heads: usize,
        attention: &Attention,
    ) -> Vec<f32> {
        let size = attention.head_size;
        let width = heads * size;
        let mut output = Vec::new();
        for query in queries.chunks(width) {
            for head in 0..heads {
                let of_head = |line: &'_ [f32]| line[head * size..][..size].to_vec();
                let scores: Vec<f64> = keys
                    .chunks(width)
                    .zip(mask)
                    .map(|(key, mask)| {
                        let product = of_head(query)
                            .iter()
                            .zip(of_head(key))
                            .map(|(a, b)| f64::from(a * b))
                            .sum::<f64>();
                        (product * f64::from(attention.factor) + f64::from(*mask)).exp()
                    })
                    .collect();
                let sum: f64 = scores.iter().sum();
                for at in 0..size {
                    let seen = values.chunks(width).zip(&scores);
                    let seen: f64 = seen.map(|(value, score)| score * f64::from(of_head(value)[at])).sum();
                    output.push((seen / sum) as f32);
                }
            }
        }
        output
    }

    proptest! {
        #[test]
        fn heads_of_any_size_see_what_they_should(
            (size, heads, rows, tokens) in (1_usize..40, 1_usize..4, 1_usize..9, 1_usize..40),
            numbers in prop::collection::vec(-1.0_f32..1.0, 1_000),
            hidden in prop::collection::vec(any::<bool>(), 40),
        ) {
            let width = size * heads;
            let mut numbers = numbers.iter().copied().cycle();
            let mut take = |count: usize| numbers.by_ref().take(count).collect::<Vec<f32>>();
            let (queries, keys, values) = (take(rows * width), take(tokens * width), take(tokens * width));
            // Nobody sees what is hidden; the first token always is seen.
            let hide = |(at, hidden): (usize, &bool)| if *hidden && at > 0 { f32::NEG_INFINITY } else { 0.0 };
            let of_text: Vec<f32> = hidden[..tokens].iter().enumerate().map(hide).collect();
            let both = [vec![0.0; tokens], of_text.clone()].concat();
            let mask = Mask::new(&both, &[2, 1, 1, tokens as i64], [2, heads, rows, tokens]).unwrap();
            let attention = Attention { head_size: size, factor: 0.7, of_none: 0.0 };
            let part = Part { text: 1, first_row: 0, queries: &queries, keys: &keys, values: &values };
            let mut output = vec![9.0; queries.len()];
            attention.attend(&part, &mask, heads, &mut output);
            for (got, wanted) in output.iter().zip(plain(&queries, &keys, &values, &of_text, heads, &attention)) {
                prop_assert!((got - wanted).abs() < 1e-5, "{got} is not {wanted}");
            }
        }
    }

    #[test]
    fn a_token_that_may_look_at_none_sees_what_was_said() {
        let (queries, mask) = ([1.0; 2], [f32::NEG_INFINITY; 3]);
        let mask = Mask::new(&mask, &[1, 1, 1, 3], [1, 1, 1, 3]).unwrap();
        let part = Part {
            text: 0,
            first_row: 0,
            queries: &queries,
            keys: &[1.0; 6],
            values: &[1.0; 6],
        };
        let mut output = [9.0; 2];
        Attention {
            head_size: 2,
            factor: 1.0,
            of_none: 0.0,
        }
        .attend(&part, &mask, 1, &mut output);
        assert_eq!(output, [0.0; 2]);
        Attention {
            head_size: 2,
            factor: 1.0,
            of_none: f32::NAN,
        }
        .attend(&part, &mask, 1, &mut output);
        assert!(output.iter().all(|number| number.is_nan()));
    }

    #[test]
    fn masks_of_other_sizes_are_refused() {
        let sizes = [2, 3, 4, 5];
        for shape in [[2, 3, 4, 5], [1, 1, 1, 1], [1, 3, 1, 5], [2, 1, 4, 1]] {
            let numbers = vec![0.0; shape.iter().product::<i64>() as usize];
            assert!(Mask::new(&numbers, &shape, sizes).is_some(), "{shape:?}");
            assert!(Mask::new(&numbers[1..], &shape, sizes).is_none(), "{shape:?}");
        }
        assert!(Mask::new(&[0.0; 2], &[2], sizes).is_none());
        assert!(Mask::new(&[0.0; 6], &[2, 1, 1, 3], sizes).is_none());
    }
}
