import type { TargetedKeyboardEvent } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { EventInput, useKinds } from './event-input.tsx'
import { Choice, Figure, Table } from './figure.tsx'
import { count, duration, many, percent } from './format.ts'
import { Icon } from './icons.tsx'
import { Page } from './page.tsx'
import { funnel, type By, type FunnelRow, type Kind } from './questions.ts'
import { choose } from './route.ts'
import { Answered, Empty, NoEvents } from './states.tsx'
import { useAnswer, useFilters, useWorld } from './world.ts'

const units = { minutes: 'minutes', hours: 'hours', days: 'days', weeks: 'weeks' }
const most = 20

/** How many go all the way, and where the others stop. */
export function Funnel() {
  const filters = useFilters()
  const { params } = useWorld().route
  const known = useKinds()
  const steps = params.has('steps') ? stepsIn(params.get('steps') ?? '') : suggested(known.rows ?? [])
  const named = steps.filter((step) => step !== '')
  const by = (params.get('by') ?? 'actor') as By
  const within = params.get('within') ?? '14 days'
  const breakdown = params.get('breakdown') ?? undefined
  const isWhole = named.length >= 2 && named.length === steps.length
  const question = isWhole ? funnel({ steps, within, by, breakdown }, filters) : undefined
  const answer = useAnswer(question)
  return (
    <Page title="Funnel" lead="How many go all the way, one step after another, and where the others stop." filters={['app', 'range']}>
      <Answered answer={known} empty={<NoEvents />}>
        {(kinds) => (
          <>
            <section class="card builder" aria-labelledby="funnel-steps">
              <h2 id="funnel-steps">Steps</h2>
              <Steps steps={steps} kinds={kinds} />
              <div class="controls">
                <Within value={within} />
                <Choice label="Count" value={by} options={{ actor: 'People', org: 'Organizations' }} onChoose={(next) => choose({ by: next })} />
                <Breakdown value={breakdown ?? ''} />
              </div>
            </section>
            {question
              ? <Answered answer={answer} empty={<Nobody first={steps[0] ?? ''} />}>{(rows) => <Result rows={rows} by={by} within={within} breakdown={breakdown} question={question} />}</Answered>
              : <Empty title="Name the steps"><p>A funnel has at least two: choose an event for each of them, or take away those you do not need.</p></Empty>}
          </>
        )}
      </Answered>
    </Page>
  )
}

const stepsIn = (text: string): string[] => (text === '' ? ['', ''] : text.split('\n'))

// What there is to see at once: the way to a first build, or to any; else what happens most.
const usual = [
  ['onboarding-step-copy-command', 'User CLI login', 'App Created', 'Build Requested', 'Build Succeeded'],
  ['Build Requested', 'Build Started', 'Build Succeeded'],
]
function suggested(kinds: Kind[]): string[] {
  const names = new Set(kinds.map(({ event }) => event))
  const [first = '', second = ''] = names
  return usual.find((steps) => steps.every((step) => names.has(step))) ?? [first, second]
}

/** The steps in their order; each can be named, moved and taken away, by mouse, finger or keyboard. */
function Steps({ steps, kinds }: { steps: string[], kinds: Kind[] }) {
  const list = useRef<HTMLOListElement>(null)
  const [told, setTold] = useState('')
  const [focus, setFocus] = useState<number>()
  const set = (next: string[]) => choose({ steps: next.join('\n') || '\n' })
  // A step that was added is there only once the address has changed.
  useEffect(() => {
    const input = focus === undefined ? undefined : list.current?.querySelectorAll('input')[focus]
    if (!input) return
    input.focus()
    setFocus(undefined)
  }, [focus, steps.length])

  const name = (index: number, event: string) => set(steps.with(index, event))
  const add = () => {
    set([...steps, ''])
    setFocus(steps.length)
    setTold(`Step ${steps.length + 1} was added.`)
  }
  const remove = (index: number) => {
    set(steps.toSpliced(index, 1))
    setFocus(Math.min(index, steps.length - 2))
    setTold(`Step ${index + 1} was removed. ${many(steps.length - 1, 'step')} are left.`)
  }
  const move = (index: number, to: number, moved = steps[index] ?? '') => {
    if (to < 0 || to >= steps.length) return
    set(steps.toSpliced(index, 1).toSpliced(to, 0, moved))
    setFocus(to)
    setTold(`${moved || 'The step'} is step ${to + 1} of ${steps.length} now.`)
  }
  const onKeyDown = (index: number) => (event: TargetedKeyboardEvent<HTMLInputElement>) => {
    if (!event.altKey || !['ArrowUp', 'ArrowDown'].includes(event.key)) return
    event.preventDefault()
    move(index, event.key === 'ArrowUp' ? index - 1 : index + 1, event.currentTarget.value.trim())
  }
  return (
    <>
      <p class="hint" id="steps-hint">Type a name or choose one. Alt with ↑ or ↓ moves the step that you are at.</p>
      <ol class="steps" ref={list} aria-describedby="steps-hint">
        {steps.map((step, index) => (
          <li key={index}>
            <span class="step-number" aria-hidden="true">{index + 1}</span>
            <EventInput label={`Step ${index + 1}`} value={step} kinds={kinds} hasHiddenLabel placeholder="Name of an event"
              onChoose={(event) => name(index, event)} onKeyDown={onKeyDown(index)} />
            <span class="step-buttons">
              <button type="button" class="button icon-only" disabled={index === 0} aria-label={`Move step ${index + 1} up`} onClick={() => move(index, index - 1)}><Icon name="up" /></button>
              <button type="button" class="button icon-only" disabled={index === steps.length - 1} aria-label={`Move step ${index + 1} down`} onClick={() => move(index, index + 1)}><Icon name="down" /></button>
              <button type="button" class="button icon-only" disabled={steps.length <= 2} aria-label={`Remove step ${index + 1}`} onClick={() => remove(index)}><Icon name="remove" /></button>
            </span>
          </li>
        ))}
      </ol>
      <button type="button" class="button" disabled={steps.length >= most} onClick={add}><Icon name="add" /> Add a step</button>
      <p class="visually-hidden" role="status">{told}</p>
    </>
  )
}

/** The window for all steps together. */
function Within({ value }: { value: string }) {
  const [amount = '14', unit = 'days'] = value.split(' ')
  const set = (next: string, nextUnit: string) => choose({ within: `${Math.max(1, Math.floor(Number(next)) || 1)} ${nextUnit}` })
  return (
    <div class="choice" role="group" aria-label="All within">
      <span class="label" aria-hidden="true">All within</span>
      <div class="pair">
        <input type="number" min={1} step={1} value={amount} aria-label="Amount" onChange={({ currentTarget }) => set(currentTarget.value, unit)} />
        <select value={unit} aria-label="Unit" onChange={({ currentTarget }) => set(amount, currentTarget.value)}>
          {Object.keys(units).map((name) => <option key={name}>{name}</option>)}
        </select>
      </div>
    </div>
  )
}

function Breakdown({ value }: { value: string }) {
  return (
    <label class="field">
      <span class="label">Broken down by tag</span>
      <input type="text" list="tags" value={value} placeholder="none" autocomplete="off" spellcheck={false} onChange={({ currentTarget }) => choose({ breakdown: currentTarget.value.trim() })} />
      <datalist id="tags">{['platform', 'build_mode', 'app_id', 'source', 'command_path'].map((name) => <option key={name} value={name} />)}</datalist>
    </label>
  )
}

function Nobody({ first }: { first: string }) {
  return <Empty title="Nobody began"><p>“{first}” did not happen in this range, for what is chosen above. Choose a longer range, or another first step.</p></Empty>
}

type ResultProps = { rows: FunnelRow[], by: By, within: string, breakdown?: string, question: Parameters<typeof Figure>[0]['question'] }

function Result({ rows, by, within, breakdown, question }: ResultProps) {
  const begun = rows.reduce((sum, row) => sum + (row.step === 1 ? row.subjects : 0), 0)
  if (begun === 0) return <Nobody first={rows[0]?.event ?? ''} />
  const last = Math.max(...rows.map(({ step }) => step))
  const done = rows.reduce((sum, row) => sum + (row.step === last ? row.subjects : 0), 0)
  const who = by === 'org' ? many(begun, 'organization') : many(begun, 'person', 'people')
  const groups = [...Map.groupBy(rows, (row) => row.breakdown)]
  return (
    <Figure
      title="From the first step to the last"
      summary={`${who} began; ${count(done)} went all the way within ${within}: ${percent(done / begun)}.`}
      question={question}
      chart={
        <div class="funnels">
          {groups.map(([value, steps]) => (
            <section key={value} aria-label={breakdown ? `${breakdown}: ${value ?? 'none'}` : 'All'}>
              {breakdown && <h3>{value ?? <em>no {breakdown}</em>}</h3>}
              <Bars steps={steps} />
            </section>
          ))}
        </div>}
      table={<Table caption="Steps of the funnel" rows={rows} columns={[
        { head: 'Step', cell: (row) => `${row.step}. ${row.event}` },
        ...(breakdown ? [{ head: breakdown, cell: (row: FunnelRow) => row.breakdown ?? '–' }] : []),
        { head: by === 'org' ? 'Organizations' : 'People', cell: (row) => count(row.subjects), isNumber: true },
        { head: 'Of all', cell: (row) => percent(row.conversion ?? 0), isNumber: true },
        { head: 'Of the step before', cell: (row) => (row.step === 1 ? '' : percent(row.step_conversion ?? 0)), isNumber: true },
        { head: 'Median time', cell: (row) => (row.median_seconds === null ? '' : duration(row.median_seconds)), isNumber: true },
      ]} />} />
  )
}

function Bars({ steps }: { steps: FunnelRow[] }) {
  return (
    <ol class="funnel">
      {steps.map((row, index) => {
        const lost = (steps[index - 1]?.subjects ?? row.subjects) - row.subjects
        return (
          <li key={row.step}>
            {index > 0 && (
              <p class="between">
                {percent(row.step_conversion ?? 0)} went on{lost > 0 && <>, <span class="lost">{count(lost)} did not</span></>}
                {row.median_seconds !== null && <>; half of them within {duration(row.median_seconds)}</>}
              </p>
            )}
            <div class="funnel-bar" style={{ '--share': row.conversion ?? 0 }}>
              <span class="funnel-name">{row.event}</span>
              <span class="funnel-count"><strong>{count(row.subjects)}</strong> {percent(row.conversion ?? 0)}</span>
            </div>
          </li>
        )
      })}
    </ol>
  )
}
