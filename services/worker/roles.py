"""The worker's role and how it changes: SERVING → DRAINING → SWITCHING → SERVING, under a higher epoch each time.

A role is a label: weights, pool, prefix cache and loans stay. prefill → decode: what is claimed is computed and handed
over first, or given back where nobody else decodes. decode → prefill: what runs is finished here. Nothing is given up, so
a change takes as long as that.
"""

from __future__ import annotations

import enum

import structlog

from brigade.bus.registry import WorkerLease
from brigade.core.messages import Role
from brigade.runtime.bell import Bell
from brigade.runtime.retry import until_answered
from services.decode.role import DecodeRole
from services.prefill.role import PrefillRole


class RoleState(enum.Enum):
    SERVING = "serving"
    DRAINING = "draining"
    SWITCHING = "switching"
    LEAVING = "leaving"
    """The process ends: no change of role begins any more."""


class RoleMachine:
    """Follows the desired role of the highest epoch (rule 8). Registered role, epoch and accepting change by scripts only."""

    def __init__(
        self,
        lease: WorkerLease,
        prefill: PrefillRole,
        decode: DecodeRole,
        *,
        role: Role,
        epoch: int,
        bell: Bell,
        step_bell: Bell,
    ) -> None:
        self.role = role
        self.epoch = epoch
        self.state = RoleState.SERVING
        self._lease = lease
        self._prefill = prefill
        self._decode = decode
        self._bell = bell
        self._step_bell = step_bell
        self._desired: tuple[int, Role] = (epoch, role)
        self._num_registrations = 0

    def on_registered(self, desired_role: Role | None, desired_epoch: int) -> None:
        """The registry shows this worker as accepting again, whatever went before."""
        self._num_registrations += 1
        if self.state is RoleState.SERVING:
            self._open()
        if desired_role is not None:
            self.desire(desired_role, desired_epoch)
        self._bell.ring()

    def desire(self, role: Role, epoch: int) -> None:
        """A role was decided; only one of a higher epoch than the actual one counts."""
        if epoch > max(self.epoch, self._desired[0]):
            self._desired = (epoch, role)
            self._bell.ring()

    def leave(self) -> None:
        self.state = RoleState.LEAVING
        self._prefill.close()

    async def run(self) -> None:
        """Change the role whenever another one is desired, until cancelled."""
        while True:
            seen = self._bell.num_rings
            if self._desired[0] > self.epoch and self.state is not RoleState.LEAVING:
                await self._change()
            else:
                await self._bell.wait(after=seen)

    async def _change(self) -> None:
        """Drain and switch. Begins again when the registration was lost meanwhile, or somebody handed us work."""
        log = structlog.get_logger()
        log.info("role_draining", role=self.role.value, desired=self._desired[1].value, epoch=self._desired[0])
        while self._desired[0] > self.epoch and not self._is_leaving():
            self.state = RoleState.DRAINING
            self._prefill.drain()
            seen = self._bell.num_rings
            registrations = self._num_registrations
            if not await until_answered(self._lease.start_draining):
                await self._bell.wait(after=seen)  # the heartbeat registers first
                continue
            while not self._is_idle() and registrations == self._num_registrations:
                seen = self._bell.num_rings
                if not self._is_idle():
                    await self._bell.wait(after=seen)
            if self._is_leaving():
                return
            self.state = RoleState.SWITCHING
            epoch, role = self._desired
            seen = self._bell.num_rings
            answer = await until_answered(self._lease.switch, role, epoch)
            if answer == "OK":
                self.role, self.epoch = role, epoch
            else:
                await self._bell.wait(after=seen)
        if self._is_leaving():
            await until_answered(self._lease.start_draining)  # the switch may have come after that of `Life`
            return
        self.state = RoleState.SERVING
        self._open()
        log.info("role_switched", role=self.role.value, epoch=self.epoch)

    def _is_leaving(self) -> bool:
        return self.state is RoleState.LEAVING

    def _is_idle(self) -> bool:
        return self._prefill.is_idle and self._decode.is_idle

    def _open(self) -> None:
        if self.role.prefills:
            self._prefill.open(decodes_too=self.role.decodes)
        else:
            self._prefill.close()
        self._step_bell.ring()
