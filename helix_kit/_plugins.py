"""Code of the user's own, named as ``module:name`` or ``path/file.py:name``: scheduling policies, placement methods.

Naming such code runs it, as `import` does. Every way in which that can fail is one message that names the text that was
typed, the file and the line. The error of the user's code is kept as the cause.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from helix_kit import _files
from helix_kit.errors import InputError

PACKAGE = str(Path(__file__).resolve().parent)
FORMS = "module:{0} or ./file.py:{0}"
"""How own code is named; the place holder is what is expected, such as Class."""


def is_own_code(name: str) -> bool:
    """Whether a name means code of the user's own: no name of the package's own has a colon.

    >>> is_own_code("helix"), is_own_code("./mine.py:Mine")
    (False, True)
    """
    return ":" in name


def load(name: str, *, field: str, kind: str) -> Any:
    """What ``module:name`` or ``path/file.py:name`` means.

    Parameters
    ----------
    name
        The text that the user typed. Modules are looked for where Python looks, and then in the current folder.
    field
        Option or argument, for messages.
    kind
        What is expected, for messages: ``Class`` or ``function``.

    Raises
    ------
    InputError
        There is no such module, file or name, or the module cannot be imported.

    Examples
    --------
    >>> load("math:sqrt", field="method", kind="function")(9.0)
    3.0
    """

    def fault(expected: str) -> InputError:
        return InputError(expected, field=field, value=name)

    # The last colon: a path on Windows begins with one.
    place, _, attribute = name.rpartition(":")
    if not place or not all(part.isidentifier() for part in attribute.split(".")):
        raise fault(f"expected {FORMS.format(kind)}")
    is_file = place.endswith(".py") or "/" in place or "\\" in place
    module = _from_file(Path(place).expanduser(), fault) if is_file else _from_path(place, fault)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            wanted = inspect.isclass if kind == "Class" else inspect.isroutine
            own = [n for n, value in vars(module).items() if wanted(value) and _is_of(value, module)]
            where = f" ({module.__file__})" if getattr(module, "__file__", None) and not is_file else ""
            known = _files.unknown(kind.lower(), attribute, own) if own else f"it defines no {kind.lower()}"
            raise fault(f"{place}{where} has no {attribute!r}: {known}")
        found = getattr(found, part)
    return found


def _is_of(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _from_path(place: str, fault: Callable[[str], InputError]) -> ModuleType:
    """A module by its dotted name, also from the current folder, which is not on the path of the program."""
    if not re.fullmatch(r"\w+(\.\w+)*", place):
        raise fault(f"{place!r} is no name of a module: expected {FORMS.format('Name')}")
    if place not in sys.modules:
        importlib.invalidate_caches()  # the file may have been written a moment ago
    here = str(Path.cwd())
    paths = [None] if here in sys.path or "" in sys.path else [None, here]
    for path in paths:
        if path is not None:
            sys.path.append(path)
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            is_the_module = error.name is not None and f"{place}.".startswith(f"{error.name}.")
            if path is not None and is_the_module:
                sys.path.remove(path)
            if not is_the_module:
                raise fault(_cannot(place, error)) from error
            missing = error.name
        except (Exception, SystemExit) as error:
            raise fault(_cannot(place, error)) from error
    raise fault(
        f"there is no module {missing!r}, neither installed nor in the current folder {here}; "
        "a file is named with its ending, as in ./file.py:Name"
    )


def _from_file(path: Path, fault: Callable[[str], InputError]) -> ModuleType:
    """The module in a file. It is loaded again when the file has changed."""
    if path.suffix != ".py":
        near = Path(f"{path}.py")
        hint = f": did you mean {near}?" if near.is_file() else ""
        raise fault(f"expected the name of a file that ends in .py{hint}")
    try:
        path = path.resolve()
        changed_ns = path.stat().st_mtime_ns
        source = path.read_bytes()
    except OSError as error:
        raise fault(f"{path} cannot be read ({error.strerror})") from None
    digest = hashlib.sha256(f"{path} {changed_ns}".encode() + source).hexdigest()[:12]
    module_name = f"{path.stem}_{digest}"  # of its own, so that no module of that name is replaced
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None:
        raise fault(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for modules beside it that it imports
    try:
        # Not by the loader: it would take compiled code of the file as it was, if both are of one second and one size.
        exec(compile(source, path, "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[module_name]
        if isinstance(error, Exception | SystemExit):
            raise fault(_cannot(str(path), error)) from error
        raise
    return module


def _cannot(place: str, error: BaseException) -> str:
    return f"{place} cannot be imported: {told(error)}"


def told(error: BaseException) -> str:
    """An error of the user's code as one line: kind, message, and the line where it was raised.

    >>> told(ValueError("of no use"))
    'ValueError: of no use'
    """
    frames = list(_frames(error))
    where = ""
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    if frames:
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})"
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":") + where


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by this package's own code, and not by code that a user named."""
    frames = traceback.extract_tb(error.__traceback__)
    return not frames or frames[-1].filename.startswith(PACKAGE)


def _frames(error: BaseException) -> Iterator[traceback.FrameSummary]:
    """Frames of the user's code: those outside of this package and of Python's import machinery."""
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith((PACKAGE, "<frozen")) and frame.filename != importlib.__file__:
            yield frame
