"""What the tests of gantry.nn share."""
import torch

FLOATS = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float64: 1e-9}


def saved_bytes(function, *exclude):
    """Bytes of distinct storages that autograd keeps during function(), without those of the tensors in `exclude`."""
    kept = {}
    known = {tensor.untyped_storage().data_ptr() for tensor in exclude}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.nbytes() and storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    return sum(kept.values()), result


def gradients(function, *leaves, seed=7):
    """Output, and gradients of leaves for a fixed random gradient of the output."""
    torch.manual_seed(seed)
    out = function(*leaves)
    wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    dout = torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float32).to(out.dtype)
    return out, torch.autograd.grad(out, wanted, dout)


def leaf(*shape, dtype=torch.float32, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale).to(dtype).requires_grad_()
