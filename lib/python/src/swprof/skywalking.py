# SPDX-License-Identifier: Apache-2.0
"""With the SkyWalking agent for Python (apache-skywalking): its segments are reported to swprofd, which profiles them
in place of the agent's own profiler.

install() waits for the agent to be imported; nothing happens before, or without it. Only the agent's public classes are
touched. Where they are not as they are known here, a message says so, and the agent stays as it is.
"""

import importlib
import os
import sys

import swprof

# Other modules are imported where they are needed: each Python with SWPROF=1 has this one, also without an agent.

_AGENT = "skywalking.agent"

_installed = False
_names = None           # that swprofd was told: service, instance
_reporting = False      # the agent runs in this process, and reports the segments that we do
_patched = None         # whether the spans of this version can be; None: not tried yet


class _Unknown(Exception):
    """The agent is not as it is known here."""


def _warn(text, *args):
    import logging
    logging.getLogger("swprof").warning("swprof: " + text, *args)


def _debug(text):
    """With the exception that is handled."""
    import logging
    logging.getLogger("swprof").debug("swprof: " + text, exc_info=True)


def _warn_unknown(error):
    _warn("apache-skywalking %s is not known here (%s): its segments are not profiled by swprofd", _version(), error)


def _version():
    try:
        from importlib.metadata import version
        return version("apache-skywalking")
    except Exception:
        return "of unknown version"


# ---- segments ----

def _entered(span):
    """A context's first entry span has started, or has another name, and has not been reported."""
    context = span.context
    segment = context.segment
    context._swprof = span._swprof = swprof.start(
        span.op, trace_id=str(segment.related_traces[0]), segment_id=str(segment.segment_id))


def _continued(context, snapshot):
    """The context goes on in this thread with what was begun in another."""
    if snapshot is not None and snapshot.is_valid():
        context._swprof = swprof.continue_segment(
            str(snapshot.segment_id), segment_id=str(context.segment.segment_id))


def _patch_spans():
    """Raises _Unknown, ImportError, AttributeError: nothing is changed then."""
    from skywalking import Kind, config
    from skywalking.trace.context import NoopContext, SpanContext
    from skywalking.trace.span import EntrySpan

    start, stop, continued = SpanContext.start, SpanContext.stop, SpanContext.continued
    entry = Kind.Entry
    context = SpanContext()
    if hasattr(EntrySpan, "op") or NoopContext.start is not start or NoopContext.continued is continued:
        raise _Unknown("its spans are others")
    ids = str(context.segment.related_traces[0]), str(context.segment.segment_id)
    span = EntrySpan(context=context, sid=0, pid=-1, op="name")
    if not all(ids) or span.kind is not entry or span.context is not context or span.depth:
        raise _Unknown("its entry spans are others")
    is_quiet = swprof.is_quiet

    def sw_start(self, span):
        result = start(self, span)
        try:
            if span.kind is entry and _reporting:
                if config.agent_instance_name is not _names[1]:
                    _attach(config)
                if not is_quiet() and getattr(self, "_swprof", None) is None:
                    _entered(span)
        except Exception:
            _debug("a span is not reported")
        return result

    def sw_stop(self, span):
        over = stop(self, span)
        if over:
            try:
                reported = self.__dict__.get("_swprof")
                if reported is not None:
                    reported.stop(bool(span.error_occurred))
            except Exception:
                _debug("the end of a span is not reported")
        return over

    def sw_continued(self, snapshot):
        result = continued(self, snapshot)
        try:
            if _reporting and not is_quiet() and getattr(self, "_swprof", None) is None:
                _continued(self, snapshot)
        except Exception:
            _debug("a continued segment is not reported")
        return result

    def get_op(self):
        return self.__dict__["op"]

    def set_op(self, op):
        """Frameworks name the span of the server anew, and programs may."""
        values = self.__dict__
        was = values.get("op")
        values["op"] = op
        if was is None or was == op:
            return
        try:
            reported = values.get("_swprof")
            if reported is not None:
                reported.rename(op)
            elif _reporting and self.depth and not is_quiet() and getattr(self.context, "_swprof", None) is None:
                _entered(self)
        except Exception:
            _debug("a name is not reported")

    SpanContext.start, SpanContext.stop, SpanContext.continued = sw_start, sw_stop, sw_continued
    EntrySpan.op = property(get_op, set_op)


# ---- the agent ----

def _module_from_spec(spec):
    import importlib.util
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception:
        _debug(f"{spec.name} cannot be loaded")
    return module


def _mend_plugins():
    """On Python 3.12 and later, 1.2.0 loads none of its plugins: it makes their modules, and does not execute them (as
    1.3.0 does). Without them there are no segments."""
    if sys.version_info < (3, 12) or _version() != "1.2.0":
        return
    from types import SimpleNamespace
    from skywalking import plugins
    if plugins.importlib is importlib:
        plugins.importlib = SimpleNamespace(
            metadata=importlib.metadata, util=SimpleNamespace(module_from_spec=_module_from_spec))


def _attach(config):
    """The names are as the agent makes them, also those of its forks."""
    global _names
    _names = config.agent_name, config.agent_instance_name
    if not swprof.init(*_names, agent=True):
        _warn("swprofd cannot be told of %r, instance %r: too long a name, or not a text", *_names)


def _before_start():
    """The agent does not start its profiler then."""
    global _patched
    from skywalking import config
    if _patched is None:
        _patched = False
        try:
            _patch_spans()
            _patched = True
            _mend_plugins()
        except Exception as e:
            _warn_unknown(e)
    if _patched:
        config.agent_profile_active = False


def _after_start():
    global _reporting
    from skywalking import config
    if _patched:
        _attach(config)
        _reporting = True


def _forked():
    """The agent of a child is none, until it is started there."""
    global _reporting, _names
    _reporting, _names = False, None


def _patch_agent(module):
    """`module` is skywalking.agent."""
    kind = type(module.agent)
    start = kind.start

    def sw_start(self, *args, **kwargs):
        try:
            _before_start()
        except Exception:
            _debug("cannot be prepared")
        result = start(self, *args, **kwargs)
        try:
            _after_start()
        except Exception:
            _debug("cannot be attached")
        return result

    kind.start = sw_start
    module.start = module.agent.start
    # Before the agent's own handler, which starts it in the child.
    os.register_at_fork(after_in_child=_forked)
    if getattr(module.agent, "started_pid", None) == os.getpid():
        _warn("the agent was started before: its own profiler goes on asking for tasks")
        _before_start()
        _after_start()


class _Loader:
    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        try:
            self._loader.exec_module(module)
        except ImportError as e:
            if (e.name or "").startswith("skywalking."):
                _warn("apache-skywalking %s cannot start, it lacks %s; 1.2.0 can", _version(), e.name)
            raise
        module.__spec__.loader = module.__loader__ = self._loader
        try:
            _patch_agent(module)
        except Exception as e:
            _warn_unknown(e)


class _Finder:
    def find_spec(self, name, path=None, target=None):
        if name != _AGENT:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None) if finder is not self else None
            spec = find(name, path, target) if find else None
            if spec is not None:
                spec.loader = _Loader(spec.loader)
                return spec
        return None


def install():
    """Once for a process, best before the agent is imported."""
    global _installed
    if _installed:
        return
    _installed = True
    module = sys.modules.get(_AGENT)
    if module is None:
        sys.meta_path.insert(0, _Finder())
    else:
        _patch_agent(module)
