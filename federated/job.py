"""A federation as a job: rounds of trips, what is counted, and what x is worth by now."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from federated.algorithm import Answer, FederatedAlgorithm, Problem
from federated.checks import check_merged, recommended
from federated.messages import Message
from federated.network import Envelope, Network, Plan
from federated.objective import ClientObjective, Look
from federated.part import Block, Errand, Told, edges_of
from zoo.core.device import Array
from zoo.core.errors import EvaluationError, TooManyFailures
from zoo.core.rng import Key
from zoo.core.state import Log, freeze, state, thaw
from zoo.core.types import Evaluations, Failure, Reply
from zoo.core.validation import check_positive
from zoo.execution.executor import Executor
from zoo.execution.ledger import Account, Ledger
from zoo.execution.parts import PartReply
from zoo.execution.shards import Shards
from zoo.execution.threads import limited
from zoo.run.job import HARD, MOST_FAILURES, WINDOW, WINDOW_START, Report, SearchState
from zoo.run.journal import PARTS, Journal

COLUMNS = ("round", "queries", "hidden", "up", "down", "clock", "answers", "said", "value", "worst", "spread")
"""Of the history of a run, before what the task measures beside: numbers so far, but for "answers", which is
how many clients have answered the last trip of the round; then how many clients have said what x is worth to
them; and of these the weighted mean, which is F where they are all, the highest f_i, and their deviation."""


@state
class Begun:
    """What a round began with.

    Attributes:
        server: The server's state.
        most: Queries that each client may have asked for at the end, since the run began, shape
            (num_clients,).
        awaited: How many answers are waited for in each trip.
    """

    server: Any
    most: Any
    awaited: int


@state
class FederatedState(SearchState):
    """Where a federation is. `optimizer` is the server's state, a step is a round, an evaluation a query.

    Attributes:
        hidden: Queries that papers leave out of their count; they are among `nfev` all the same.
        gradients: Exact gradients asked for.
        up: Bytes that clients have sent.
        down: Bytes that the server has sent.
        clock: Virtual seconds.
        absent: Trips to a client that nothing came back from.
        late: Replies that were not waited for.
        stale: Replies to an earlier trip that came in and were put away.
        duplicates: Replies that came in a second time and were put away.
        invalid: Replies with a number that is not finite, put away as well.
        void: Rounds that changed nothing, as too few have answered one of their trips.
        queries: Of each client, shape (num_clients,); what it asked for in a trip in which it ended its
            worker, or hung, is not known.
        sent: Bytes sent by each client.
        received: Bytes sent to each client.
        answered: Rounds that each client has answered to the end.
        pending: Replies under way: tuples (at, client, round, trip, copy).
        history: For each round in turn, the numbers that `COLUMNS` names, and what the task measures beside.
        looked: Values of each client at x, shape (num_clients, 1 + measures), NaN where nobody has looked.
        trip: Number of the next trip of the round.
        active: Who still takes part in it, and the trip that each of them vanishes in; None between rounds.
        begun: What it began with; None between rounds.
        clients: States of all clients that have one, by number; only in checkpoints.
        lost: Clients that are not asked any more, as they have ended their workers, or hung, alone.
    """

    hidden: int = 0
    gradients: int = 0
    up: int = 0
    down: int = 0
    clock: float = 0.0
    absent: int = 0
    late: int = 0
    stale: int = 0
    duplicates: int = 0
    invalid: int = 0
    void: int = 0
    queries: Any = None
    sent: Any = None
    received: Any = None
    answered: Any = None
    pending: tuple[tuple[float, int, int, int, bool], ...] = ()
    history: Log = dataclasses.field(default_factory=Log)
    looked: Any = None
    trip: int = 0
    active: Any = None
    begun: Any = None
    clients: Any = None
    lost: tuple[int, ...] = ()


class FederatedJob:
    """Have clients minimise the mean of their functions.

    Args:
        algorithm: What server and clients do.
        task: What clients have.
        executor: Where clients live.
        x0: Start, shape (dim,).
        key: Where all randomness comes from.
        network: How clients are reached.
        rounds: Rounds at most, or None.
        budget: Queries at most, of all clients together, or None: no round is begun that may exceed it.
        traffic: Bytes, in both directions, after which no further round is begun, or None.
        measure_every: Rounds from one look at F to the next; 0 for none but at the end.
        on_error: "raise" or "nan", for clients that raise.
        threads: Threads of numerical libraries during the run.
    """

    checkpoint_seconds = math.inf

    def __init__(
        self,
        algorithm: FederatedAlgorithm[Any, Any],
        objective: ClientObjective,
        executor: Executor,
        x0: Array,
        *,
        key: Key,
        network: Network,
        rounds: int | None = None,
        budget: int | None = None,
        traffic: int | None = None,
        measure_every: int = 1,
        on_error: str = "raise",
        threads: int = 1,
    ) -> None:
        self.algorithm, self.objective, self.executor = algorithm, objective, executor
        self.journal: Journal | None = None
        self.event: Any = None
        self.arrived: Any = None
        self.account = Account()
        self.task = objective.task
        self._x0, self._key, self._network = x0, key, network
        self._rounds, self._budget, self._traffic = rounds, budget, traffic
        self._measure_every, self._on_error, self._threads = measure_every, on_error, threads
        count = self.task.num_clients
        self._weights = [
            check_positive(f"weight({client})", self.task.weight(client)) for client in range(count)
        ]
        self._problem = Problem(
            count, self.task.bounds, key.fold("shared"), tuple(self._weights), self.task.spacing
        )
        self._edges = edges_of(count)
        # Rounds after which each client was asked once, on average.
        self._turns = -(-count // min(count, network.asked(count)))
        self._shards: Shards | None = None
        self._parts: list[Any] | None = None  # states of all parts, which they are still to be given
        self._midway: tuple[FederatedState, FederatedState] | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Hold the threads, open the executor, and have it keep the clients."""
        with limited(self._threads), self.executor.open(self.objective):
            self._shards = self.executor.shards(
                functools.partial(Block, self.algorithm, self._x0, self._problem, self._edges),
                len(self._edges) - 1,
                on_error=self._on_error,
                event=self.event,
                account=self.account,
            )
            if self._parts is not None:
                self._shards.restore(self._parts)
                self._parts = None
            try:
                yield
            finally:
                self._shards = None

    def init(self) -> FederatedState:
        """Return the state before the first round."""
        count = self.task.num_clients
        with limited(self._threads):
            server = self.algorithm.server_init(self._x0, self._problem)
        return FederatedState(
            server,
            violation_best=0.0,
            queries=np.zeros(count, np.int64),
            sent=np.zeros(count, np.int64),
            received=np.zeros(count, np.int64),
            answered=np.zeros(count, np.int64),
            looked=np.full((count, 1 + len(self.task.measures)), np.nan),
        )

    def finished(self, state: FederatedState) -> str | None:
        """Return why no further round is to be begun, or None.

        Raises:
            TooManyFailures: More than a fifth of the latest queries raised, crashed or hung: of those of the
                last rounds, as few whole ones as have a hundred queries and asked each client once or so.
        """
        if state.trip:
            return None
        if self._fails_too_often(state):
            few = state.nfev - self._window(state)
            raise TooManyFailures(
                f"{len(state.failures)} of the last {few} queries raised, crashed or hung, the last one "
                f"being query {state.failures[-1]}; a run stops when more than a fifth do."
            )
        reason = self._over(state)
        if reason is not None and 0 < state.step == state.void:
            return f"{reason}; too few clients have answered in any round"
        return reason

    def _over(self, state: FederatedState) -> str | None:
        """Return what is used up, or why the algorithm is done, or None."""
        reason = self.algorithm.finished(state.optimizer)
        if reason is not None:
            return reason
        if len(state.lost) == self.task.num_clients:
            return "every client ends its worker, or hangs"
        if (left := self.task.num_clients - len(state.lost)) < self._network.min_replies:
            return f"{left} clients are left, and a round takes answers of {self._network.min_replies}"
        if self._rounds is not None and state.step >= self._rounds:
            return f"all {self._rounds} rounds are done"
        if self._traffic is not None and (sent := state.up + state.down) >= self._traffic:
            return f"the traffic of {self._traffic} bytes is used up: {sent} have been sent"
        if self._budget is not None:
            most = int(self._most(state)[self._planned(state)[0].clients].sum())
            left = self._budget - state.nfev
            if most > left:
                few = f"too few for a round, which takes up to {most}"
                if left == self._budget:
                    return f"the budget of {left} queries is {few}"
                rest = f": the last {left} are {few}" if left else ""
                return f"the budget of {self._budget} queries is used up{rest}"
        return None

    def _most(self, state: FederatedState) -> np.ndarray[Any, Any]:
        """Return how many values each client asks for in the next round at most."""
        first, later = (self.algorithm.most_queries(len(self._x0), fresh) for fresh in (True, False))
        return np.where(state.sent == 0, first, later)

    def _planned(self, state: FederatedState) -> tuple[Plan, float]:
        """Return who takes part in the next round, and when it begins."""
        count = self.task.num_clients
        pending = [Envelope(*one) for one in state.pending if one[1] not in state.lost]
        now, busy = self._network.ready(state.clock, count - len(state.lost), pending)
        out = [*busy, *state.lost]
        return self._network.plan(self._round_key(state), count, len(self.algorithm.trips), out), now

    def _window(self, state: FederatedState) -> int:
        """Return the id of the first of the latest queries.

        They are those of whole rounds, in which every client that was asked has its share, whatever its
        number.
        """
        columns = len(COLUMNS) + len(self.task.measures)
        before = state.history.array[COLUMNS.index("queries") :: columns][
            : max(0, state.step + 1 - self._turns)
        ]
        index = int(np.searchsorted(before, state.nfev - WINDOW, "right")) - 1
        return int(before[index]) if index >= 0 else 0

    def _fails_too_often(self, state: FederatedState) -> bool:
        if state.step < self._turns or state.nfev < WINDOW_START:
            return False
        return len(state.failures) > MOST_FAILURES * (state.nfev - self._window(state))

    def step(self, state: FederatedState) -> tuple[FederatedState, Report]:
        """Do a round.

        Raises:
            EvaluationError: A client raised, and the policy says that this ends the run.
            WorkerError: Clients cannot be kept anywhere.
            Interrupt: A signal asked to stop; what was done of the round is kept.
        """
        work = replace(state, violation_best=0.0)
        told: list[Evaluations] = []
        try:
            if not len(work.history):
                work = self._looked(work, 0)
            while work.trip < len(self.algorithm.trips):
                work, evaluations = self._trip(work)
                told.append(evaluations)
            step, every = work.step + 1, self._measure_every
            ended = replace(work, step=step, trip=0, active=None, begun=None)
            ended = self._looked(ended, work.active.shape[1], look=bool(every) and step % every == 0)
        except BaseException:
            if work.trip:  # no target is reached in the middle of a round
                self._midway = state, replace(work, violation_best=math.inf)
            raise
        values = np.concatenate([one.values for one in told]) if told else np.empty(0)
        return ended, Report(history_value(ended), Evaluations(values), ended.fun_best < state.fun_best)

    def _round_key(self, state: FederatedState) -> Key:
        return self._key.fold("round", state.step)

    def _trip(self, work: FederatedState) -> tuple[FederatedState, Evaluations]:
        """Do one trip of a round."""
        trips, round_key = self.algorithm.trips, self._round_key(work)
        if work.active is None:
            plan, now = self._planned(work)
            most = work.queries + self._most(work)
            begun = Begun(work.optimizer, most, self._network.awaited(len(plan.clients)))
            work = replace(work, clock=now, active=np.stack([plan.clients, plan.vanish]), begun=begun)
        trip, number, key = trips[work.trip], work.trip, round_key.fold("trip", work.trip)
        asked = work.active[0].tolist()
        work = replace(work, trip=number + 1)
        if not asked:
            return work, Evaluations(np.empty(0))
        with limited(self._threads):
            messages = trip.request(work.optimizer, asked)
        each = [messages] * len(asked) if isinstance(messages, Message) else list(messages)
        if len(each) != len(asked):
            raise ValueError(
                f"`request` must return a message for each of {len(asked)} clients, got {len(each)}."
            )
        distinct = {id(message): message for message in each}
        sizes = {number: message.nbytes for number, message in distinct.items()}
        down = np.array([sizes[id(message)] for message in each], np.int64)
        present = work.active[1] > number
        here = work.active[0][present]
        told_each = [m for m, is_here in zip(each, present, strict=True) if is_here]
        errand = _errand(work.step, number, key, here, told_each, (work.begun.most - work.queries)[here])
        assert self._shards is not None
        mark = self._shards.mark()
        try:
            told, work, evaluations = self._called(work, errand)
            received = work.received.copy()
            received[work.active[0]] += down
            work = replace(work, received=received, down=work.down + int(down.sum()))
            merged = self._merged(
                work, trip, number, key, asked, told, dict(zip(asked, down.tolist(), strict=True))
            )
        except BaseException:  # clients have not done a trip that the server does not know of
            self._shards.back_to(mark)
            raise
        return merged, evaluations

    def _called(self, work: FederatedState, errand: Errand) -> tuple[list[Told], FederatedState, Evaluations]:
        """Send clients on their errand, and count what they have asked for."""
        work, replies = self._visited(work, errand)
        told: list[Told] = []
        values: list[Any] = [np.empty(0)]
        failures: list[Failure] = []
        count = 0
        for reply in replies:
            failures += [failure._replace(row=count + failure.row) for failure in reply.failures]
            values += reply.values
            count += reply.num_queries
            told += reply.reply or ()
        told.sort(key=lambda one: one.client)
        self._failed(work, told)
        evaluations = Evaluations(np.concatenate(values), tuple(failures))
        queries, sent = work.queries.copy(), work.sent.copy()
        for one in told:
            queries[one.client] += one.queries
            sent[one.client] += one.nbytes
        hard = *work.failures, *(work.nfev + failure.row for failure in failures if failure.kind in HARD)
        return (
            [one for one in told if one.failure is None],
            replace(
                work,
                nfev=work.nfev + count,
                num_failed=work.num_failed + len(failures),
                failures=hard,
                hidden=work.hidden + sum(one.hidden for one in told),
                gradients=work.gradients + sum(one.gradients for one in told),
                up=work.up + sum(one.nbytes for one in told),
                queries=queries,
                sent=sent,
            ),
            evaluations,
        )

    def _visited(self, work: FederatedState, errand: Errand) -> tuple[FederatedState, list[PartReply]]:
        """Send blocks on an errand, and one by one the clients of blocks that were given up.

        What a block replies is on record under its number; what the i-th client of it does by itself, under
        that and i + 1 times as many as there are blocks. A client that is given up by itself is lost.
        """
        assert self._shards is not None
        step = errand.round * len(self.algorithm.trips) + errand.trip
        journal, first_id, blocks = self.journal, work.nfev, len(self._edges) - 1
        known = {} if journal is None else dict(map(unpacked, journal.known(PARTS, step)))

        def visited(errands: Sequence[Errand | None], turn: int) -> list[PartReply | None]:
            def record(part: int, reply: PartReply) -> None:
                if journal is not None:
                    journal.append(step, first_id, PARTS, packed(turn * blocks + part, reply))
                if self.arrived is not None:
                    self.arrived(reply.num_queries)

            own = {at - turn * blocks: reply for at, reply in known.items() if at // blocks == turn}
            assert self._shards is not None
            return self._shards.call(errands, errand.key, known=own, record=record)

        where = np.searchsorted(errand.clients, self._edges).tolist()
        spans = list(itertools.pairwise(where))
        replies = visited([errand if first < last else None for first, last in spans], 0)
        every = [reply for reply in replies if reply is not None]
        given_up = [
            part
            for part, reply in enumerate(replies)
            if reply is not None and reply.error is not None and reply.error.kind != "raised"
        ]
        lost: list[int] = []
        for part in given_up:
            first, last = spans[part]
            clients = errand.clients[first:last].tolist()
            if len(clients) == 1:
                lost += clients
            else:
                message = f"clients {clients} are visited one by one"
                self._say(work, event="block given up", part=part, message=message)
        alone = [part for part in given_up if spans[part][1] - spans[part][0] > 1]
        for turn in range(max((spans[part][1] - spans[part][0] for part in alone), default=0)):
            errands: list[Errand | None] = [None] * blocks
            for part in alone:
                if (place := spans[part][0] + turn) < spans[part][1]:
                    errands[part] = errand.only(place)
            for reply, one in zip(visited(errands, turn + 1), errands, strict=True):
                if reply is None or one is None:
                    continue
                every.append(reply)
                if reply.error is not None and reply.error.kind != "raised":
                    lost.append(int(one.clients[0]))
        for client in lost:
            self._say(work, event="client lost", client=client, message="it is not asked again in this run")
        return replace(work, lost=tuple(sorted({*work.lost, *lost}))), every

    def _failed(self, work: FederatedState, told: Sequence[Told]) -> None:
        """Say which clients have failed beside their function.

        Raises:
            EvaluationError: One has asked for more values than its algorithm says that it does at most; or
                the policy says that it ends the run; or all have failed, and none has ever answered.
        """
        failed = [one for one in told if one.failure is not None]
        never = bool(failed) and len(failed) == len(told) and not work.up
        for one in failed:
            assert one.failure is not None
            if one.failure.kind == "asked" or self._on_error == "raise" or never:
                raise EvaluationError(
                    f"client {one.client} raised twice{', as all did' * (never and len(failed) > 1)}: "
                    f"{one.failure.message}",
                    details=one.failure.details,
                )
            self._say(work, event="client raised", client=one.client, message=one.failure.message)

    def _merged(
        self,
        work: FederatedState,
        trip: Any,
        number: int,
        key: Key,
        asked: Sequence[int],
        told: Sequence[Told],
        down: dict[int, int],
    ) -> FederatedState:
        """Have the server take what came in."""
        by_client = {one.client: one for one in told}
        clients = sorted(by_client)
        delivery = self._network.deliver(
            self._key,
            key,
            work.clock,
            (work.step, number),
            work.begun.awaited,
            clients,
            [by_client[client].queries for client in clients],
            [by_client[client].nbytes + down[client] for client in clients],
            [Envelope(*one) for one in work.pending],
        )
        sound = [client for client in delivery.on_time if by_client[client].is_finite]
        for client in sorted(set(delivery.on_time) - set(sound)):
            self._say(
                work, event="reply put away", client=client, message="it has numbers that are not finite"
            )
        sent = work.sent.copy()
        for client in delivery.copied:
            sent[client] += by_client[client].nbytes
        work = replace(
            work,
            clock=delivery.at,
            up=work.up + sum(by_client[client].nbytes for client in delivery.copied),
            sent=sent,
            absent=work.absent + len(asked) - len(told),
            late=work.late + len(delivery.late),
            stale=work.stale + delivery.stale,
            duplicates=work.duplicates + delivery.duplicates,
            invalid=work.invalid + len(delivery.on_time) - len(sound),
            pending=tuple((*one,) for one in delivery.pending),
        )
        kept = np.isin(work.active[0], sound)
        work = replace(work, active=work.active[:, kept])
        if len(sound) < self._network.min_replies:
            trip_of = f" trip {number}" if number else ""
            self._say(
                work,
                event="too few answers",
                message=f"{len(sound)} of {len(asked)} clients have answered{trip_of} in time; x stays as it "
                "is",
            )
            with limited(self._threads):
                server = self.algorithm.undone(work.optimizer, work.begun.server)
            return replace(work, optimizer=server, void=work.void + 1, active=work.active[:, :0])
        answers = [Answer(client, by_client[client].message, self._weights[client]) for client in sound]
        with limited(self._threads):
            server = trip.merge(work.optimizer, answers)
        check_merged(server, work.optimizer)
        work = replace(work, optimizer=server)
        if number + 1 < len(self.algorithm.trips):
            return work
        recommended(self.algorithm, server, self._x0)
        answered = work.answered.copy()
        answered[list(sound)] += 1
        return replace(work, answered=answered)

    def _say(self, work: FederatedState, **fields: Any) -> None:
        if self.event is not None:
            self.event({**fields, "round": work.step})

    def _looked(self, work: FederatedState, answers: int, look: bool = True) -> FederatedState:
        """Return the state with one more line of history."""
        looked = self._look(work) if look else np.full_like(work.looked, np.nan)
        at_clients = looked[:, 0][np.isfinite(looked[:, 0])]
        value, *measured = (self._mean(column) for column in looked.T)
        line = [
            work.step,
            work.nfev,
            work.hidden,
            work.up,
            work.down,
            work.clock,
            answers,
            len(at_clients) if look else math.nan,
            value,
            at_clients.max() if len(at_clients) else math.nan,
            at_clients.std() if len(at_clients) else math.nan,
            *measured,
        ]
        work = replace(work, history=work.history.append(line), looked=looked if look else work.looked)
        first = self._window(work)
        work = replace(work, failures=tuple(number for number in work.failures if number >= first))
        if value < work.fun_best:
            return replace(work, fun_best=value, x_best=self.algorithm.recommend(work.optimizer))
        return work

    def _mean(self, column: np.ndarray[Any, Any]) -> float:
        """Return the mean by weight over the clients that say, NaN where none does."""
        rows = np.isfinite(column)
        weights = np.array(self._weights)[rows]
        return float((weights * column[rows]).sum() / weights.sum()) if rows.any() else math.nan

    def _look(self, work: FederatedState) -> np.ndarray[Any, Any]:
        """Return what x is worth at each client, shape (num_clients, 1 + measures).

        Raises:
            EvaluationError: Nobody can look, right at the start: all have raised.
        """
        x = self.algorithm.recommend(work.optimizer)
        candidates = Look(x, self.task.num_clients)

        def told(fields: dict[str, Any]) -> None:
            if fields["event"] == "evaluation raised":
                fields = {"event": "measure raised", "client": fields["id"], "message": fields["message"]}
            self._say(work, **fields)

        # One that raises is no sign of a bug where others do not.
        ledger = Ledger(
            self.objective.units(candidates), on_error="nan", event=told, succeeded=True, account=Account()
        )
        found = self.executor.evaluate(candidates, self._key.fold("look"), work.step, ledger)
        raised = [failure for failure in found.failures if failure.kind == "raised"]
        if len(raised) == len(found) and not work.nfev:
            first = raised[0]
            raise EvaluationError(
                f"`measure` raised at each client, at the first one: {first.message}", details=first.details
            )
        columns = [found.values[:, None]]
        missing = np.full((len(found), 1), np.nan)
        columns += [found.extras.get(name, missing) for name in self.task.measures]
        return np.concatenate(columns, 1)

    def finish(self, state: FederatedState) -> FederatedState:
        """Settle for where the server is."""
        if state.x is not None:
            return state
        x, fun = self.algorithm.recommend(state.optimizer), history_value(state)
        if not math.isfinite(fun):
            looked = self._look(state)
            fun = self._mean(looked[:, 0])
            state = replace(state, looked=looked)
            if fun < state.fun_best:
                state = replace(state, fun_best=fun, x_best=x)
        return replace(state, x=x, fun=fun)

    def cut_short(self, state: FederatedState) -> FederatedState:
        """Return what to report of a run that can go on: where the server is."""
        return self.finish(state)

    def metrics(self, state: FederatedState, report: Report) -> dict[str, Any]:
        """Return the round's numbers and the algorithm's own diagnostics.

        The first line says under "start" what `COLUMNS` from "value" on, and the measures, were before.
        """
        names = (*COLUMNS, *self.task.measures)
        line = dict(zip(names, state.history.array[-len(names) :].tolist(), strict=True))
        at_clients = state.looked[:, 0][np.isfinite(state.looked[:, 0]) & math.isfinite(line["value"])]
        start = state.history.array[COLUMNS.index("value") : len(names)].tolist() if state.step == 1 else None
        counters = ("hidden", "up", "down", "absent", "late", "stale", "duplicates", "invalid", "void")
        return {
            "step": state.step,
            "nfev": state.nfev,
            "best": state.fun_best if math.isfinite(state.fun_best) else None,
            "value": line["value"],
            "median": float(np.median(at_clients)) if len(at_clients) else None,
            "failed": state.num_failed,
            **{name: getattr(state, name) for name in counters},
            "clock": state.clock,
            "answers": int(line["answers"]),
            "said": int(line["said"]) if math.isfinite(line["said"]) else None,
            **{name: line[name] for name in ("worst", "spread", *self.task.measures)},
            **({} if start is None else {"start": start}),
            **self.algorithm.diagnostics(state.optimizer),
        }

    def snapshot(self, state: FederatedState) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
        """Return the state as a JSON tree and arrays, with the states of all clients gathered."""
        if self._midway is not None and self._midway[0] is state:
            state = self._midway[1]
        if self._shards is None:
            parts = self._parts or []
        else:
            from zoo.execution import interrupts

            with interrupts.overlooked():
                parts = self._shards.snapshot()
        clients = {str(client): one for part in parts for client, one in sorted(part.items())}
        return freeze(replace(state, clients=clients))

    def restore(self, tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> FederatedState:
        """Return the state that a snapshot was taken of; clients are given theirs when the job is opened."""
        restored = thaw(tree, arrays)
        if not isinstance(restored, FederatedState):
            raise ValueError(f"it holds a {type(restored).__name__}, not the state of a federation")
        clients = {int(client): one for client, one in restored.clients.items()}
        edges = self._edges
        self._parts = [
            {client: clients[client] for client in range(first, last) if client in clients}
            for first, last in itertools.pairwise(edges)
        ]
        # Clients whose states have no arrays in common with the ones on workers.
        restored = replace(restored, clients=None)
        if self._fails_too_often(restored) and not restored.trip:
            return replace(restored, failures=())
        return restored


def history_of(state: FederatedState, measures: Sequence[str] = ()) -> dict[str, np.ndarray[Any, Any]]:
    """Return the columns of a state's history by name; `measures` are those of the task."""
    names = (*COLUMNS, *measures)
    return dict(zip(names, state.history.array.reshape(-1, len(names)).T, strict=True))


def history_value(state: FederatedState) -> float:
    """Return F as the last line of history has it, NaN where nobody has looked or nobody says."""
    columns = len(COLUMNS) + state.looked.shape[1] - 1
    return float(state.history.array[-columns:][COLUMNS.index("value")]) if len(state.history) else math.nan


def packed(part: int, reply: PartReply) -> Reply:
    """Return what came of a part's queries as a record of the journal.

    Its first row is the number of the part; "lengths" are how many values each query has, behind them 1 if
    the part was given up, which the last failure then says.
    """
    failures = reply.failures if reply.error is None else (*reply.failures, reply.error)
    values = np.concatenate([np.empty(0), *reply.values])
    lengths = np.array([*map(len, reply.values), reply.error is not None], np.float64)
    return Reply(part, values, tuple(failures), extras={"lengths": lengths})


def unpacked(record: Reply) -> tuple[int, PartReply]:
    """Return the part, and what came of its queries, of a record of the journal."""
    *lengths, given_up = record.extras["lengths"].astype(int).tolist()
    values = np.split(record.values, np.cumsum(lengths)[:-1]) if lengths else []
    for one in values:
        one.flags.writeable = False
    error = record.failures[-1] if given_up else None
    failures = record.failures[:-1] if given_up else record.failures
    return record.start, PartReply(None, tuple(values), tuple(failures), error)


def _errand(
    number: int,
    trip: int,
    key: Key,
    clients: np.ndarray[Any, Any],
    messages: Sequence[Message],
    most: np.ndarray[Any, Any],
) -> Errand:
    """Return what all blocks hear, each message in it once."""
    distinct: dict[int, tuple[int, Message]] = {}
    which = [distinct.setdefault(id(message), (len(distinct), message))[0] for message in messages]
    return Errand(
        number,
        trip,
        key,
        clients,
        tuple(message for _, message in distinct.values()),
        np.array(which, np.int64),
        most,
    )
