import { useState } from 'preact/hooks'

const key = 'actorscope-theme'
const themes = { auto: 'Like the system', light: 'Light', dark: 'Dark' }
type Theme = keyof typeof themes

const chosen = (): Theme => {
  const theme = localStorage.getItem(key)
  return theme === 'light' || theme === 'dark' ? theme : 'auto'
}

/** Lets the style sheet know what was chosen; without a choice it follows the system. */
export function applyTheme(): void {
  const theme = chosen()
  if (theme === 'auto') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = theme
}

export function ThemeSelect() {
  const [theme, setTheme] = useState(chosen)
  const choose = (next: Theme) => {
    if (next === 'auto') localStorage.removeItem(key)
    else localStorage.setItem(key, next)
    applyTheme()
    setTheme(next)
  }
  return (
    <label class="field">
      <span class="label">Colors</span>
      <select value={theme} onChange={({ currentTarget }) => choose(currentTarget.value as Theme)}>
        {Object.entries(themes).map(([name, text]) => <option key={name} value={name}>{text}</option>)}
      </select>
    </label>
  )
}
