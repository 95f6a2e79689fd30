"""Waiting for things, always with a deadline. The only place of the harness that sleeps."""

import threading
import time


class Timeout(AssertionError):
    """What was waited for did not happen in time."""


def wait_for(condition, seconds, what, interval=0.05):
    """Polls condition() until it returns something true and returns that.

    what completes the sentence "waited N s for ..."; it may be a function, called when time is up, so that
    the message can hold the last state seen.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise Timeout("waited %g s for %s" % (seconds, what() if callable(what) else what))
        time.sleep(interval)


def wait_still(sample, seconds, what, still=0.5, interval=0.1):
    """Polls sample() until it has returned equal values for `still` seconds; returns that value."""
    deadline = time.monotonic() + seconds
    last, since = sample(), time.monotonic()
    while time.monotonic() - since < still:
        if time.monotonic() >= deadline:
            raise Timeout("waited %g s for %s to come to rest" % (seconds, what))
        time.sleep(interval)
        value = sample()
        if value != last:
            last, since = value, time.monotonic()
    return last


def together(*steps):
    """Runs functions at the same time, each (seconds, function) that much later: for races, which need chance.

    Returns when all have ended, and raises what one of them has raised.
    """
    raised = []

    def begin(seconds, function):
        time.sleep(seconds)
        try:
            function()
        except BaseException as error:
            raised.append(error)
    running = [threading.Thread(target=begin, args=step) for step in steps]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if raised:
        raise raised[0]
