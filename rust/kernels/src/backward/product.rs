//! Products of floats with weights of any format, in both directions, and with other floats.

use std::ops::Range;

use super::fill::fill_right;
use super::packed::{Packed, fill_panel};
use super::pieces::{Scratch, for_pieces, sized};
use super::right::Right;
use super::tile::{DEPTH, FEW, FLOATS, Target, multiply_panels};
use super::view::View;
use crate::Error;
use crate::context::Context;
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch};
use crate::shared::SharedSlice;

/// Columns of a product that a piece of work has at most. With [`DEPTH`] steps, their panel of the right operand is 256 KB.
const STRIP: usize = 256;
/// The fewest columns of a piece, where panels can have any number of them.
const NARROW: usize = 64;

/// What happens to a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sum {
    /// Its factor.
    pub scale: f32,
    /// Whether it is added to the output, or replaces it.
    pub add: bool,
}

impl Sum {
    /// The output becomes the product.
    pub const SET: Self = Self { scale: 1.0, add: false };
    /// The product is added to the output.
    pub const ADD: Self = Self { scale: 1.0, add: true };
}

/// Computes `output = scale · left · right`, or adds it: rows of `left` × columns of `right`, row after row.
///
/// # Errors
/// `Error::Shape` if sizes do not match; `Error::Memory`; `Error::Cancelled` if the context was interrupted.
pub fn multiply(context: &Context, left: &Packed, right: Right, sum: Sum, output: &mut [f32]) -> Result<(), Error> {
    multiplied(context, left, right, sum, (output, false))
}

/// As [`multiply`], with the same bits, but the output is the transposed product: columns × rows.
///
/// # Errors
/// As for `multiply`.
pub fn multiply_turned(
    context: &Context,
    left: &Packed,
    right: Right,
    sum: Sum,
    output: &mut [f32],
) -> Result<(), Error> {
    multiplied(context, left, right, sum, (output, true))
}

/// Checks the sizes of two operands, rows and columns, and the numbers that the output has room for.
pub(super) fn expect_sizes((rows, columns): (usize, usize), right: (usize, usize), output: usize) -> Result<(), Error> {
    if columns == right.0 && rows.checked_mul(right.1) == Some(output) {
        return Ok(());
    }
    Err(Error::Shape(format!(
        "{rows} × {columns} times {} × {} into room for {output}; expected equal inner sizes, and rows × columns",
        right.0, right.1
    )))
}

fn multiplied(
    context: &Context,
    left: &Packed,
    right: Right,
    sum: Sum,
    (output, turned): (&mut [f32], bool),
) -> Result<(), Error> {
    let (inner, columns) = right.size();
    expect_sizes((left.rows, left.columns), (inner, columns), output.len())?;
    if inner == 0 && !sum.add {
        output.fill(0.0);
    }
    if output.is_empty() || inner == 0 {
        return Ok(());
    }
    let panels = left.rows.div_ceil(left.side);
    let wanted = context.pool.threads() * 4;
    let (blocks, mut strip) = (block(&right), STRIP);
    while strip > NARROW && strip / 2 >= blocks && columns.div_ceil(strip) < wanted {
        strip /= 2;
    }
    let strips = columns.div_ceil(strip);
    // Rows are divided only where columns give too little work to share: every part fills its own panels.
    let parts = if strips < wanted / 2 { (wanted / 2).div_ceil(strips).min(panels) } else { 1 };
    let numbers = SharedSlice::new(output);
    for_pieces(context, strips * parts, &|piece, scratch| {
        let (index, part) = (piece / parts, piece % parts);
        let first = index * strip;
        dispatch(
            context.isa,
            Strip {
                isa: context.isa,
                left,
                panels: panels * part / parts..panels * (part + 1) / parts,
                right,
                first,
                count: strip.min(columns - first),
                sum,
                output: &numbers,
                stride: if turned { left.rows } else { columns },
                turned,
                scratch,
            },
        )
    })
}

/// Columns that a panel holds a multiple of, since blocks cannot be divided.
fn block(right: &Right) -> usize {
    match right {
        Right::Columns(weights) => weights.format().info().block_elements,
        _ => 1,
    }
}

/// Some columns of a product, for some panels of rows.
struct Strip<'a> {
    isa: Isa,
    left: &'a Packed,
    panels: Range<usize>,
    right: Right<'a>,
    first: usize,
    count: usize,
    sum: Sum,
    output: &'a SharedSlice<'a, f32>,
    stride: usize,
    /// Whether the output is columns × rows.
    turned: bool,
    scratch: &'a mut Scratch,
}

impl Kernel for Strip<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Result<(), Error> {
        let Self { isa, left, panels, right, first, count, sum, output, stride, turned, scratch } = self;
        let shape = FLOATS.with::<L>();
        let width = if count <= LANES || left.side == FEW { LANES } else { shape.columns };
        let inner = left.columns;
        for step in (0..inner).step_by(DEPTH) {
            let steps = DEPTH.min(inner - step);
            let parts = count.div_ceil(width);
            let panel = sized(&mut scratch.right, parts * steps * width)?;
            L::call(
                set,
                Fill { isa, right: &right, step, steps, first, count, width, panel, rows: &mut scratch.rows },
            )?;
            for index in panels.clone() {
                let row = index * left.side;
                let from = &left.numbers[row * inner + step * left.side..][..steps * left.side];
                for (part, panel) in panel.chunks_exact(steps * width).enumerate() {
                    let column = first + part * width;
                    let start = if turned { column * stride + row } else { row * stride + column };
                    let target = Target { numbers: output, start, stride, scale: sum.scale, turned };
                    let size = (left.side.min(left.rows - row), width.min(first + count - column));
                    // SAFETY: every piece has its own rows and columns of the output.
                    unsafe { multiply_panels::<L>(set, (from, panel), left.side, size, target, sum.add || step > 0) };
                }
            }
        }
        Ok(())
    }
}

/// [`fill_right`] as a function of its own.
struct Fill<'a> {
    isa: Isa,
    right: &'a Right<'a>,
    step: usize,
    steps: usize,
    first: usize,
    count: usize,
    width: usize,
    panel: &'a mut [f32],
    rows: &'a mut Vec<f32>,
}

impl Kernel for Fill<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Result<(), Error> {
        let Self { isa, right, step, steps, first, count, width, panel, rows } = self;
        fill_right::<L>((set, isa), right, (step, steps), (first, count), width, (panel, rows))
    }
}

/// A small product on one thread: `scale · left · right`, or its sum with what is there.
///
/// # Safety
/// No other thread uses these results of the target.
#[inline(always)]
pub(super) unsafe fn multiply_small<L: Lanes>(
    set: L::Set,
    left: View,
    right: View,
    target: Target,
    add: bool,
    buffers: (&mut Vec<f32>, &mut Vec<f32>, &mut Vec<f32>),
) -> Result<(), Error> {
    L::call(set, Small { left, right, target, add, buffers })
}

/// [`multiply_small`] as a function of its own; its results belong to this thread.
struct Small<'a> {
    left: View<'a>,
    right: View<'a>,
    target: Target<'a>,
    add: bool,
    buffers: (&'a mut Vec<f32>, &'a mut Vec<f32>, &'a mut Vec<f32>),
}

impl Kernel for Small<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Result<(), Error> {
        let Self { left, right, target, add, buffers: (left_panel, right_panel, rows) } = self;
        let shape = FLOATS.with::<L>();
        let (inner, columns) = (left.columns, right.columns);
        let width = if columns <= LANES { LANES } else { shape.columns };
        let panels = left.rows.div_ceil(shape.rows);
        let packed = sized(left_panel, panels * shape.rows * inner)?;
        for (index, panel) in packed.chunks_exact_mut(shape.rows * inner).enumerate() {
            let first = index * shape.rows;
            fill_panel::<L>(set, panel, shape.rows, left, (first, shape.rows.min(left.rows - first)));
        }
        let right_panel = sized(right_panel, columns.div_ceil(width) * inner * width)?;
        let right = Right::Numbers(right);
        let (steps, count) = (inner, columns);
        // Nothing is dequantized here.
        let isa = Isa::SCALAR;
        L::call(set, Fill { isa, right: &right, step: 0, steps, first: 0, count, width, panel: right_panel, rows })?;
        for (index, from) in packed.chunks_exact(shape.rows * inner).enumerate() {
            let row = index * shape.rows;
            for (part, panel) in right_panel.chunks_exact(inner * width).enumerate() {
                let column = part * width;
                let size = (shape.rows.min(left.rows - row), width.min(columns - column));
                let target = Target { start: target.start + row * target.stride + column, ..target };
                // SAFETY: `multiply_small`, which alone makes these, has been promised the results.
                unsafe { multiply_panels::<L>(set, (from, panel), shape.rows, size, target, add) };
            }
        }
        Ok(())
    }
}
