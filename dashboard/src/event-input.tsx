import type { TargetedKeyboardEvent } from 'preact'
import { useEffect, useId, useState } from 'preact/hooks'
import { many } from './format.ts'
import { kinds, type Kind } from './questions.ts'
import { useAnswer, useFilters, type Answer } from './world.ts'

/** The kinds of events that there are for the chosen organization and app, whenever: names to choose from. */
export function useKinds(): Answer<Kind> {
  const { org, app } = useFilters()
  return useAnswer(kinds({ org, app }))
}

/** The name of an event: typed, or one of those that there are. Told when it is settled. */
export function EventInput({ label, value, kinds: known = [], placeholder, onChoose, onKeyDown, hasHiddenLabel }: {
  label: string
  value: string
  kinds?: Kind[]
  placeholder?: string
  onChoose(event: string): void
  onKeyDown?(event: TargetedKeyboardEvent<HTMLInputElement>): void
  hasHiddenLabel?: boolean
}) {
  const id = useId()
  const [draft, setDraft] = useState(value)
  useEffect(() => setDraft(value), [value])
  const settle = (text: string) => { if (text.trim() !== value) onChoose(text.trim()) }
  const onKey = (event: TargetedKeyboardEvent<HTMLInputElement>) => {
    if (event.key === 'Enter') settle(event.currentTarget.value)
    onKeyDown?.(event)
  }
  const names = [...Map.groupBy(known, ({ event }) => event)].map(([name, rows]) => [name, rows.reduce((sum, { events }) => sum + events, 0)] as const)
  return (
    <label class="field event-input">
      <span class={hasHiddenLabel ? 'visually-hidden' : 'label'}>{label}</span>
      <input
        type="text" list={id} value={draft} placeholder={placeholder} autocomplete="off" spellcheck={false} maxLength={200}
        onInput={({ currentTarget }) => setDraft(currentTarget.value)}
        onChange={({ currentTarget }) => settle(currentTarget.value)} onKeyDown={onKey} />
      <datalist id={id}>{names.map(([name, events]) => <option key={name} value={name}>{many(events, 'event')}</option>)}</datalist>
    </label>
  )
}
