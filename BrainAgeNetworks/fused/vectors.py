"""Vectors of a processor inside Numba: a handful of numbers loaded, multiplied and compared at once.

Numba leaves it to LLVM to find what can be done for several channels at once, which fails where results
are kept for more than one voxel. Here a vector is a value like any other; LLVM maps it onto whatever
registers there are (16 float32 are one register of AVX-512, two of AVX2, four of NEON).

How many numbers a vector holds is given by `lanes`, a tuple of so many zeros: Numba compiles a kernel
for the types of its arguments, and the length of a tuple is part of its type. Arrays are one-dimensional
and are read at `array[i], array[i + 1], ...` without any check. uint16 stands for bfloat16, whose bits
are the upper half of a float32; uint8 for small whole numbers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, register_model

# What it decorates is called without the first argument, which type checkers cannot see.
intrinsic: Any = extending.intrinsic

_SCALARS = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: ir.IntType(32),
    types.boolean: ir.IntType(1),
}
_IN_MEMORY = {**_SCALARS, types.uint16: ir.IntType(16), types.uint8: ir.IntType(8)}
# What an array's numbers become in a vector.
_VALUES = {types.uint16: types.float32, types.uint8: types.int32}


class Vector(types.Type):
    """Numba's type of a vector: the type of its numbers and how many."""

    def __init__(self, scalar: types.Type, n_lanes: int):
        self.scalar, self.n_lanes = scalar, n_lanes
        super().__init__(name=f"Vector({scalar}, {n_lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(_SCALARS[vector.scalar], vector.n_lanes))


def _address(context, builder, array_type, array, index, kind):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _same(kind, value):
    """A vector of one constant."""
    return ir.Constant(kind, [value] * kind.count)


def _spread(builder, scalar, n_lanes):
    kind = ir.VectorType(scalar.type, n_lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.IntType(32)(0))
    chosen = ir.Constant(ir.VectorType(ir.IntType(32), n_lanes), [0] * n_lanes)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), chosen)


@intrinsic
def load(typing, array, index, lanes):
    """The numbers of an array from `index` on."""
    scalar = _VALUES.get(array.dtype, array.dtype)
    n_lanes = lanes.count

    def generate(context, builder, signature, values):
        kind = ir.VectorType(_IN_MEMORY[array.dtype], n_lanes)
        address = _address(context, builder, array, values[0], values[1], kind)
        loaded = builder.load(address, align=array.dtype.bitwidth // 8)
        whole = ir.VectorType(ir.IntType(32), n_lanes)
        if array.dtype == types.uint16:
            upper = builder.shl(builder.zext(loaded, whole), _same(whole, 16))
            return builder.bitcast(upper, ir.VectorType(ir.FloatType(), n_lanes))
        return builder.zext(loaded, whole) if array.dtype == types.uint8 else loaded

    return Vector(scalar, n_lanes)(array, types.intp, lanes), generate


@intrinsic
def store(typing, array, index, vector):
    """Write a vector to an array from `index` on; float32 is rounded to the nearest bfloat16."""

    def generate(context, builder, signature, values):
        value = values[2]
        if array.dtype == types.uint16:
            value = _rounded(builder, value)
        elif array.dtype == types.uint8:
            value = builder.trunc(value, ir.VectorType(ir.IntType(8), vector.n_lanes))
        address = _address(context, builder, array, values[0], values[1], value.type)
        builder.store(value, address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


def _rounded(builder, value):
    """The bits of bfloat16: to the nearest, halves to the even one; not-a-number stays so."""
    whole = ir.VectorType(ir.IntType(32), value.type.count)
    bits = builder.bitcast(value, whole)
    odd = builder.and_(builder.lshr(bits, _same(whole, 16)), _same(whole, 1))
    raised = builder.add(builder.add(bits, odd), _same(whole, 0x7FFF))
    no_number = builder.fcmp_unordered("uno", value, value)
    upper = builder.select(no_number, _same(whole, 0x7FC0), builder.lshr(raised, _same(whole, 16)))
    return builder.trunc(upper, ir.VectorType(ir.IntType(16), value.type.count))


@intrinsic
def add_to(typing, array, index, vector):
    """array[index + i] += vector[i], where the array is float64."""

    def generate(context, builder, signature, values):
        kind = ir.VectorType(ir.DoubleType(), vector.n_lanes)
        address = _address(context, builder, array, values[0], values[1], kind)
        value = values[2]
        if vector.scalar != types.float64:
            value = builder.fpext(value, kind)
        builder.store(builder.fadd(builder.load(address, align=8), value), address, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def spread_at(typing, array, index, lanes):
    """array[index] in every lane."""

    def generate(context, builder, signature, values):
        address = _address(context, builder, array, values[0], values[1], _SCALARS[array.dtype])
        return _spread(builder, builder.load(address), lanes.count)

    return Vector(array.dtype, lanes.count)(array, types.intp, lanes), generate


@intrinsic
def zeros_like(typing, vector):
    """0 in every lane."""

    def generate(context, builder, signature, values):
        return ir.Constant(values[0].type, None)

    return vector(vector), generate


@intrinsic
def whole_like(typing, vector, number):
    """A whole number in every lane of a vector of int32 as long as `vector`."""

    def generate(context, builder, signature, values):
        number32 = builder.trunc(values[1], ir.IntType(32))
        return _spread(builder, number32, vector.n_lanes)

    return Vector(types.int32, vector.n_lanes)(vector, types.intp), generate


@intrinsic
def multiply_add(typing, a, b, c):
    """a * b + c, rounded once where the processor can."""

    def generate(context, builder, signature, values):
        kind = values[0].type
        bits = "f32" if a.scalar == types.float32 else "f64"
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fmuladd.v{a.n_lanes}{bits}"
        )
        return builder.call(function, values)

    return a(a, a, a), generate


def _arithmetic(name, docstring):
    @intrinsic
    def operation(typing, a, b):
        def generate(context, builder, signature, values):
            return getattr(builder, name)(*values)

        return a(a, a), generate

    operation.__doc__ = docstring
    return operation


add = _arithmetic("fadd", "a + b")
subtract = _arithmetic("fsub", "a - b")
multiply = _arithmetic("fmul", "a * b")


@intrinsic
def replaces(typing, a, largest):
    """Where `a` is larger than the largest so far, or not a number: the rule of torch's max-pool."""

    def generate(context, builder, signature, values):
        larger = builder.fcmp_ordered(">", *values)
        return builder.or_(larger, builder.fcmp_unordered("uno", values[0], values[0]))

    return Vector(types.boolean, a.n_lanes)(a, a), generate


@intrinsic
def above(typing, a, b):
    """Where a > b."""

    def generate(context, builder, signature, values):
        return builder.fcmp_ordered(">", *values)

    return Vector(types.boolean, a.n_lanes)(a, a), generate


@intrinsic
def equal(typing, a, b):
    """Where whole numbers are the same."""

    def generate(context, builder, signature, values):
        return builder.icmp_signed("==", *values)

    return Vector(types.boolean, a.n_lanes)(a, a), generate


@intrinsic
def choose(typing, condition, a, b):
    """a where the condition holds, else b."""

    def generate(context, builder, signature, values):
        return builder.select(*values)

    return a(condition, a, a), generate
