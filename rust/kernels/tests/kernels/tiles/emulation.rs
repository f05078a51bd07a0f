//! The instructions of AMX where the processor does not know them: it raises SIGILL, and the handler here decodes the bytes of
//! the instruction and does what Intel's manual (volume 2) says. So tests run the very instructions that are in the binary:
//! their encoding, operands, strides and configuration.

use std::cell::RefCell;
use std::ptr::null_mut;
use std::sync::Once;

/// The tiles of a thread.
struct State {
    configured: bool,
    rows: [usize; 8],
    row_bytes: [usize; 8],
    tiles: [[[u8; 64]; 16]; 8],
}

thread_local! {
    static STATE: RefCell<State> = const {
        RefCell::new(State { configured: false, rows: [0; 8], row_bytes: [0; 8], tiles: [[[0; 64]; 16]; 8] })
    };
}

/// Whether this thread has released its tiles, as it should when it has nothing to multiply.
pub(crate) fn released() -> bool {
    STATE.with_borrow(|state| !state.configured)
}

/// From now on, this process has the instructions.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handler has the signature of SA_SIGINFO; the structure is filled completely.
        let done = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_illegal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGILL, &raw const action, null_mut())
        };
        assert_eq!(done, 0);
    });
}

extern "C" fn on_illegal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system passes the context of the instruction that it could not execute; its bytes are readable, as is memory
    // that it names, if the code that is tested is right.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        match execute(registers) {
            Some(length) => registers[libc::REG_RIP as usize] += length,
            // Not one of AMX: the next time it ends the process.
            None => {
                libc::signal(libc::SIGILL, libc::SIG_DFL);
            }
        }
    }
}

/// General registers in the order of their numbers.
const NUMBERED: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// A decoded address and the length of its bytes.
struct Address {
    start: *mut u8,
    stride: usize,
    has_index: bool,
    length: i64,
}

/// Decodes a memory operand with a base register, from the byte behind the opcode on.
///
/// # Safety
/// `code` points into an instruction.
unsafe fn address(code: *const u8, [index_extended, base_extended]: [bool; 2], registers: &[i64; 23]) -> Address {
    let value =
        |number: u8, extended: bool| registers[NUMBERED[usize::from(number | u8::from(extended) << 3)] as usize];
    // SAFETY: the caller promises the bytes of an instruction.
    let (form, sib) = unsafe { (*code, *code.add(1)) };
    let has_sib = form & 7 == 4;
    let base = if has_sib { sib & 7 } else { form & 7 };
    assert!(form >> 6 > 0 || base != 5, "an address without a base register");
    let index = sib >> 3 & 7;
    let has_index = has_sib && (index != 4 || index_extended);
    let stride = if has_index { value(index, index_extended) << (sib >> 6) } else { 0 };
    let length = 1 + usize::from(has_sib);
    // SAFETY: as above.
    let (displacement, size) = unsafe {
        let at = code.add(length);
        match form >> 6 {
            0 => (0, 0),
            1 => (i64::from(*at.cast::<i8>()), 1),
            _ => (i64::from(at.cast::<i32>().read_unaligned()), 4),
        }
    };
    let start = (value(base, base_extended) + displacement) as *mut u8;
    Address { start, stride: stride as usize, has_index, length: length as i64 + size }
}

/// Executes the instruction at the instruction pointer and returns its length; nothing if it is not of AMX.
///
/// # Safety
/// The registers are those of an instruction that may read and write the memory that it names.
unsafe fn execute(registers: &[i64; 23]) -> Option<i64> {
    // SAFETY: the caller promises the bytes of an instruction and its memory.
    unsafe {
        let code = registers[libc::REG_RIP as usize] as *const u8;
        // A VEX prefix of three bytes for the map 0F38, with W and L of 0.
        let [escape, second, third, opcode, form] = *code.cast::<[u8; 5]>();
        if escape != 0xc4 || second & 0x1f != 2 || third & 0x84 != 0 {
            return None;
        }
        let memory =
            (form >> 6 != 3).then(|| address(code.add(4), [second & 0x40 == 0, second & 0x20 == 0], registers));
        let length = 4 + memory.as_ref().map_or(1, |address| address.length);
        let (prefix, vector) = (third & 3, usize::from(!third >> 3 & 15));
        let (first, last) = (usize::from(form >> 3 & 7), usize::from(form & 7));
        STATE.with_borrow_mut(|state| {
            match (opcode, prefix, memory) {
                (0x49, 0, Some(address)) => configure(state, &*address.start.cast::<[u8; 64]>()),
                (0x49, 0, None) if form == 0xc0 => state.configured = false,
                (0x49, 3, None) => {
                    check(state, first);
                    state.tiles[first] = [[0; 64]; 16];
                }
                // tilestored and tileloadd.
                (0x4b, 2 | 3, Some(address)) => {
                    assert!(address.has_index, "the instruction is not valid without an index register");
                    check(state, first);
                    for row in 0..state.rows[first] {
                        let memory = address.start.add(row * address.stride);
                        let tile = state.tiles[first][row].as_mut_ptr();
                        let (from, to) = if prefix == 3 { (memory, tile) } else { (tile, memory) };
                        from.copy_to_nonoverlapping(to, state.row_bytes[first]);
                    }
                }
                (0x5e, _, None) => multiply(state, [first, last, vector], [prefix & 2 != 0, prefix & 1 != 0]),
                _ => return None,
            }
            Some(length)
        })
    }
}

/// `ldtilecfg`; what raises a general protection fault is an error.
fn configure(state: &mut State, bytes: &[u8; 64]) {
    assert_eq!((bytes[0], bytes[1]), (1, 0), "palette and first row");
    assert!(bytes[2..16].iter().chain(&bytes[32..48]).chain(&bytes[56..]).all(|byte| *byte == 0), "reserved bytes");
    for tile in 0..8 {
        state.rows[tile] = usize::from(bytes[48 + tile]);
        state.row_bytes[tile] = usize::from(u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]]));
        assert!(state.rows[tile] <= 16 && state.row_bytes[tile] <= 64, "a tile that is too large");
        assert_eq!(state.rows[tile] == 0, state.row_bytes[tile] == 0, "a tile without rows or columns");
    }
    state.configured = true;
    state.tiles = [[[0; 64]; 16]; 8];
}

/// A tile that has not been configured is an invalid operand.
fn check(state: &State, tile: usize) {
    assert!(state.configured && state.rows[tile] > 0, "tile {tile} has not been configured");
}

/// `tdpbuud`, `tdpbusd`, `tdpbsud` and `tdpbssd`: which of the factors are signed.
fn multiply(state: &mut State, [sums, a, b]: [usize; 3], [a_signed, b_signed]: [bool; 2]) {
    for tile in [sums, a, b] {
        check(state, tile);
    }
    assert!(sums != a && sums != b && a != b, "the same tile twice");
    assert_eq!((state.rows[a], 4 * state.rows[b]), (state.rows[sums], state.row_bytes[a]), "rows and columns");
    assert_eq!(state.row_bytes[b], state.row_bytes[sums], "columns of the sums");
    let number = |byte: u8, signed: bool| if signed { i32::from(byte as i8) } else { i32::from(byte) };
    for row in 0..state.rows[sums] {
        for column in 0..state.row_bytes[sums] / 4 {
            let place = 4 * column..4 * column + 4;
            let mut sum = i32::from_le_bytes(state.tiles[sums][row][place.clone()].try_into().expect("four bytes"));
            for at in 0..state.row_bytes[a] {
                let (x, y) = (state.tiles[a][row][at], state.tiles[b][at / 4][4 * column + at % 4]);
                sum = sum.wrapping_add(number(x, a_signed) * number(y, b_signed));
            }
            state.tiles[sums][row][place].copy_from_slice(&sum.to_le_bytes());
        }
    }
}
