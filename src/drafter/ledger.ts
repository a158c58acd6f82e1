/**
 * Whether asking for drafts has paid in a slot so far, in units of plain steps: what accepted nodes saved, less what asking and verifying
 * cost, as the engine measured both. A request starts with a small loan. When that is used up the slot sleeps: the engine
 * does not even ask. Sleeps double in length while what is tried after them earns nothing, so that a text without anything to draft
 * costs the loan and little more, whatever the drafter promises itself.
 */
import type { Random } from "./random.ts";

/** What a request may lose before its slot sleeps. */
const LOAN = 1.5;
/** The same after each sleep. */
const PROBE_LOAN = 0.75;
/** What was earned before counts as at most so much: the text may have changed. */
const MOST = 4;
/** Steps. */
const FIRST_SLEEP = 4;
const MOST_SLEEP = 128;
/** Share of the time that probing may take in the long run: where asking is cheap, sleeps stay short. */
const PROBE_SHARE = 0.005;
/** Least share of the loan, after request upon request that lost. */
const LEAST_TRUST = 1 / 8;

export class Ledger {
  private balance = LOAN;
  private earned = 0;
  private sleepLeft = 0;
  private nextSleep = FIRST_SLEEP;
  /** No nodes were drafted since it slept. */
  probing = false;

  /** A request begins: the slot is awake. @param trust share of the loan that it gets */
  open(trust: number): void {
    this.balance = LOAN * trust;
    this.earned = 0;
    this.sleepLeft = 0;
    this.nextSleep = Math.min(MOST_SLEEP, Math.round(FIRST_SLEEP / trust));
    this.probing = false;
  }

  /** A step in which the slot was asked for drafts. @param gain plain steps that it saved; below 0: that it cost */
  enter(gain: number): void {
    this.earned += gain;
    this.balance = Math.min(MOST, this.balance + gain);
    if (this.balance > LOAN) this.nextSleep = FIRST_SLEEP;
  }

  /** Drafts lost more than they may: the slot is to sleep. */
  get overdrawn(): boolean {
    return this.balance < 0;
  }

  /** What the request earned so far, in plain steps. */
  get total(): number {
    return this.earned;
  }

  get sleeping(): boolean {
    return this.sleepLeft > 0;
  }

  /** One step passed. */
  tick(): void {
    if (this.sleepLeft > 0) this.sleepLeft--;
  }

  /** The step after the next one is to be plain, its pass undisturbed by an exchange. */
  pause(): void {
    this.sleepLeft = 2;
  }

  /** A draft promises enough to end a sleep. If it does not keep that, the next sleep is not the shortest again. */
  wake(): void {
    if (!this.probing) return;
    this.probing = false;
    this.nextSleep = Math.max(FIRST_SLEEP, Math.round(this.nextSleep / 2));
  }

  /**
   * @param ask what asking once costs, in plain steps
   * @returns for how many steps
   */
  sleep(ask: number, random: Random): number {
    const most = Math.min(MOST_SLEEP, Math.max(2 * FIRST_SLEEP, ask / PROBE_SHARE));
    const length = Math.min(most, this.nextSleep);
    this.sleepLeft = Math.round(length * (0.75 + 0.5 * random.next()));
    this.nextSleep = Math.min(MOST_SLEEP, this.nextSleep * 2);
    this.probing = true;
    this.balance = Math.max(this.balance, PROBE_LOAN);
    return this.sleepLeft;
  }
}

/** How much of the loan requests get: all of it while drafts pay, ever less while request after request loses. */
export class Trust {
  private share = 1;

  get value(): number {
    return this.share;
  }

  /** A request ended. @param total what it earned */
  learn(total: number): void {
    if (total < 0) this.share = Math.max(LEAST_TRUST, this.share / 2);
    else if (total > 0) this.share = 1;
  }
}
