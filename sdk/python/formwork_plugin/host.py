"""What a plugin may ask of the host, within its grants.

Callable from the work methods, never from ``__init__``. A refusal is raised as ``componentize_py_types.Err``; left alone
it becomes the right error of the contract: ``unavailable`` when trying later may help, else ``internal``.

The interfaces themselves are ``wit_world.imports.embeddings``, ``generation`` and ``tensors``; each is there when
``plugin.toml`` asks for its grant. Outside a component this module cannot be imported.
"""

from wit_world.imports import log as _log
from wit_world.imports import progress as _progress

# Modules can only be loaded while the component is built, so each granted interface is loaded here.
try:
    from wit_world.imports import embeddings as _embeddings
except ImportError:
    _embeddings = None
try:
    from wit_world.imports import generation as _generation
except ImportError:
    _generation = None
try:
    from wit_world.imports import tensors as _tensors
except ImportError:
    _tensors = None


def log(level: str, message: str, **fields: object) -> None:
    """Writes one line of level ``trace``, ``debug``, ``info``, ``warn`` or ``error``. Needs no grant."""
    _log.log(_log.Level[level.upper()], message, [(name, str(value)) for name, value in fields.items()])


def report(done: int, total: int, message: str = "") -> None:
    """Says how far a long task has come. Needs no grant."""
    _progress.report(done, total, message)


def embed(model: str, texts: list[str]) -> list[list[float]]:
    """A vector of length 1 for each text. Needs the grant ``embeddings``."""
    if not texts:
        return []
    embedded = _granted(_embeddings, "embeddings").embed(model, texts)
    width = embedded.dimensions
    return [embedded.vectors[at : at + width] for at in range(0, len(embedded.vectors), width)]


def generate(
    model: str,
    system: str,
    prompt: str,
    *,
    max_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    stop: list[str] | None = None,
    json_schema: str | None = None,
) -> str:
    """The whole text of a generation. Needs the grant ``generation``."""
    interface = _granted(_generation, "generation")
    request = interface.Request(system, prompt, max_tokens, temperature, seed, stop or [], json_schema)
    parts = []
    with interface.start(model, request) as completion:
        while (chunk := completion.next()) is not None:
            parts.append(chunk.text)
    return "".join(parts)


def run_graph(model: str, inputs: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """Runs an ONNX graph on named ``wit_world.imports.tensors.Tensor``. Needs the grant ``tensors``."""
    return _granted(_tensors, "tensors").run(model, inputs)


def _granted(interface, grant: str):
    if interface is None:
        raise RuntimeError(f"the grant `{grant}` is missing: ask for it under [grants] in plugin.toml")
    return interface
